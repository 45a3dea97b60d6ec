"""The renderer's two kernels for CUDA, in Triton: sampling, decoding and marching of a tile of rays, forwards and backwards.

A program follows its rays from near to far, all of them one sample at a time: what is known of the rays stays in registers, and
of the samples nothing is written to memory. `render/gpu.py` calls them. Types are not annotated, as Triton finds them itself.
Letters: R rays of a tile, C channels of one plane, H hidden units, F colour features; the last three are filled up to powers of
two of at least 16, as products of matrices need them.
"""

import triton
import triton.language as tl


@triton.jit
def _softplus(x):
    """log(1 + exp(x)), within 1e-6."""
    return tl.maximum(x, 0.0) + tl.log(1.0 + tl.exp(-tl.abs(x)))


@triton.jit
def _sigmoid(x):
    t = tl.exp(-tl.abs(x))
    return tl.where(x >= 0, 1.0, t) / (1.0 + t)


@triton.jit
def _axis(plane, AXES: tl.constexpr):
    """Which world axis runs along a side of a plane: a digit to the base of four. Planes are taken in a loop, because code that
    is written out three times fills the cache of code."""
    return (AXES >> (2 * plane)) & 3


@triton.jit
def _coordinate(x, y, z, axis):
    return tl.where(axis == 0, x, tl.where(axis == 1, y, z))


@triton.jit
def _along(places, texels, scale):
    """The first of the two texels around places [R] along one side of a plane, and the second one's share."""
    # Texels have their centres at half pixels. Far outside is as good as just outside, and fits an integer.
    x = ((places * scale + 1.0) * texels - 1.0) * 0.5
    x = tl.minimum(tl.maximum(x, -2.0), texels + 1.0)
    before = tl.floor(x)
    return before.to(tl.int32), x - before


@triton.jit
def _where(row, column, height, width, next_row, next_texel):
    """Where texels [R] begin on their plane, and whether there are such."""
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    return row * next_row + column * next_texel, inside


@triton.jit
def _texels(plane, row, column, height, width, next_row, next_texel, channel, C: tl.constexpr):
    """Texels [R, C]; zero outside of the plane."""
    begin, inside = _where(row, column, height, width, next_row, next_texel)
    return tl.load(plane + begin[:, None] + channel[None, :], mask=inside[:, None] & (channel < C)[None, :], other=0.0)


@triton.jit
def _lookup(
    planes, x, y, z, height, width, next_plane, next_row, next_texel, scale, channel,
    ACROSS: tl.constexpr, DOWN: tl.constexpr, C: tl.constexpr, C_FILLED: tl.constexpr, R: tl.constexpr,
):  # fmt: skip
    """The mean of the three planes' bilinear lookups at points, [R, C]."""
    total = tl.zeros((R, C_FILLED), tl.float32)
    for plane in range(3):
        column, right = _along(_coordinate(x, y, z, _axis(plane, ACROSS)), width, scale)
        row, lower = _along(_coordinate(x, y, z, _axis(plane, DOWN)), height, scale)
        here = planes + plane * next_plane
        for tap in tl.static_range(4):
            of_row = lower if tap >= 2 else 1.0 - lower
            of_column = right if tap % 2 else 1.0 - right
            value = _texels(here, row + tap // 2, column + tap % 2, height, width, next_row, next_texel, channel, C)
            total += (of_row * of_column)[:, None] * value
    return total * (1.0 / 3.0)


@triton.jit
def _hidden(x, first, first_bias, PRECISION: tl.constexpr):
    """Hidden units [R, H] of features [R, C], with weights turned over, [C, H]."""
    return _softplus(tl.dot(x, first, input_precision=PRECISION) + first_bias[None, :])


@triton.jit
def _step(sigma, last_sigma, t, last_t, passed):
    """The interval between two samples: its weight, its optical depth, and how much that grows with the mean raw density.

    `volume.ray_weights`, interval by interval; ``passed`` is the optical depth of all before it.
    """
    middle = 0.5 * (sigma + last_sigma) - 1.0
    optical = _softplus(middle) * (t - last_t)
    # The plain form rounds 1 - exp(-x) to zero below this, which is what makes a ray count as empty. Said here, it does not
    # depend on how a card rounds its exponentials.
    lost = tl.where(optical < 2.98e-8, 0.0, 1.0 - tl.exp(-optical))
    return tl.exp(-passed) * lost, optical, _sigmoid(middle) * (t - last_t)


@triton.jit
def march_forward(
    planes, origins, directions, depths,
    first, first_bias, density, density_bias, colour, colour_bias,
    features, alpha, moment, weights,
    rays, samples, height, width, next_picture, next_plane, next_row, next_texel, scale,
    ACROSS: tl.constexpr, DOWN: tl.constexpr, C: tl.constexpr, C_FILLED: tl.constexpr, H_FILLED: tl.constexpr,
    F: tl.constexpr, F_FILLED: tl.constexpr, R: tl.constexpr, COLOURS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """What rays see at sorted depths: features in 0..1, opacity, and opacity times mean depth; without ``COLOURS`` the weights
    of the intervals instead, one less than samples."""
    picture = tl.program_id(1).to(tl.int64)
    ray = tl.program_id(0) * R + tl.arange(0, R)
    real = ray < rays
    channel, unit, feature = tl.arange(0, C_FILLED), tl.arange(0, H_FILLED), tl.arange(0, F_FILLED)
    planes += picture * next_picture
    ray += picture * rays
    ox, oy, oz = _vector(origins, ray, real)
    dx, dy, dz = _vector(directions, ray, real)
    to_hidden = tl.load(first + unit[None, :] * C_FILLED + channel[:, None])  # [C, H]
    hidden_bias, to_density = tl.load(first_bias + unit), tl.load(density + unit)
    raw_bias = tl.load(density_bias)
    if COLOURS:
        to_colour = tl.load(colour + feature[None, :] * H_FILLED + unit[:, None])  # [H, F]
        shine_bias = tl.load(colour_bias + feature)

    passed, opacity, reach = tl.zeros((R,), tl.float32), tl.zeros((R,), tl.float32), tl.zeros((R,), tl.float32)
    light, last_shine = tl.zeros((R, F_FILLED), tl.float32), tl.zeros((R, F_FILLED), tl.float32)
    # Before the first sample lies an interval of no length, whose weight is zero whatever else is said of it.
    last_t, last_sigma = tl.load(depths + ray * samples, mask=real, other=0.0), tl.zeros((R,), tl.float32)
    for n in range(samples):
        t = tl.load(depths + ray * samples + n, mask=real, other=0.0)
        x = _lookup(
            planes, ox + t * dx, oy + t * dy, oz + t * dz, height, width, next_plane, next_row, next_texel, scale, channel,
            ACROSS, DOWN, C, C_FILLED, R,
        )  # fmt: skip
        hidden = _hidden(x, to_hidden, hidden_bias, PRECISION)
        sigma = tl.sum(hidden * to_density[None, :], 1) + raw_bias
        weight, optical, _ = _step(sigma, last_sigma, t, last_t, passed)
        passed += optical
        if COLOURS:
            shine = _sigmoid(tl.dot(hidden, to_colour, input_precision=PRECISION) + shine_bias[None, :])
            light += (0.5 * weight)[:, None] * (shine + last_shine)
            last_shine = shine
            opacity += weight
            reach += weight * (0.5 * (t + last_t))
        else:
            tl.store(weights + ray * (samples - 1) + n - 1, weight, mask=real & (n > 0))
        last_t, last_sigma = t, sigma
    if COLOURS:
        # The decoder's colours are sigmoids, stretched a little.
        light = light * 1.002 - opacity[:, None] * 0.001
        tl.store(features + ray[:, None] * F + feature[None, :], light, mask=real[:, None] & (feature < F)[None, :])
        tl.store(alpha + ray, opacity, mask=real)
        tl.store(moment + ray, reach, mask=real)


@triton.jit
def _vector(values, ray, real):
    """Three numbers of each ray."""
    x = tl.load(values + ray * 3, mask=real, other=0.0)
    y = tl.load(values + ray * 3 + 1, mask=real, other=0.0)
    z = tl.load(values + ray * 3 + 2, mask=real, other=0.0)
    return x, y, z


@triton.jit
def march_backward(
    planes, origins, directions, depths,
    first, first_bias, density, density_bias, colour, colour_bias,
    features, alpha, moment, to_features, to_alpha, to_moment,
    to_planes, to_origins, to_directions, to_layers,
    rays, samples, height, width, next_picture, next_plane, next_row, next_texel, scale,
    ACROSS: tl.constexpr, DOWN: tl.constexpr, C: tl.constexpr, C_FILLED: tl.constexpr, H_FILLED: tl.constexpr,
    F: tl.constexpr, F_FILLED: tl.constexpr, R: tl.constexpr, COPIES: tl.constexpr, PLANES: tl.constexpr,
    LAYERS: tl.constexpr, RAYS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradients ``to_...`` of what `march_forward` gave, added to those of planes, layers and rays; never of depths.

    The way is the forward one again. A sample's gradient is complete when the interval behind it is known, so each is held
    until the next one has been decoded. Layers' gradients are added to one of ``COPIES``, so that programs seldom wait.
    """
    picture = tl.program_id(1).to(tl.int64)
    ray = tl.program_id(0) * R + tl.arange(0, R)
    real = ray < rays
    channel, unit, feature = tl.arange(0, C_FILLED), tl.arange(0, H_FILLED), tl.arange(0, F_FILLED)
    planes += picture * next_picture
    to_planes += picture * next_picture
    ray += picture * rays
    ox, oy, oz = _vector(origins, ray, real)
    dx, dy, dz = _vector(directions, ray, real)
    to_hidden = tl.load(first + unit[None, :] * C_FILLED + channel[:, None])  # [C, H]
    hidden_bias, to_density = tl.load(first_bias + unit), tl.load(density + unit)
    raw_bias = tl.load(density_bias)
    to_colour = tl.load(colour + feature[None, :] * H_FILLED + unit[:, None])  # [H, F]
    shine_bias = tl.load(colour_bias + feature)

    shown = real[:, None] & (feature < F)[None, :]
    towards = tl.load(to_features + ray[:, None] * F + feature[None, :], mask=shown, other=0.0)
    towards_alpha = tl.load(to_alpha + ray, mask=real, other=0.0)
    towards_moment = tl.load(to_moment + ray, mask=real, other=0.0)
    seen = tl.load(features + ray[:, None] * F + feature[None, :], mask=shown, other=0.0)
    # Interval k adds w_k s_k to sum(to_... * output). What lies behind it is all of that less what was met so far.
    behind = tl.sum(towards * seen, 1)
    behind += towards_alpha * tl.load(alpha + ray, mask=real, other=0.0)
    behind += towards_moment * tl.load(moment + ray, mask=real, other=0.0)
    constant = towards_alpha - 0.001 * tl.sum(towards, 1)  # of s, for colours are 1.002 sigmoid - 0.001
    towards *= 1.002

    passed = tl.zeros((R,), tl.float32)
    last_t, last_sigma = tl.load(depths + ray * samples, mask=real, other=0.0), tl.zeros((R,), tl.float32)
    last_weight, last_to_sigma = tl.zeros((R,), tl.float32), tl.zeros((R,), tl.float32)
    last_x = tl.zeros((R, C_FILLED), tl.float32)
    last_hidden = tl.zeros((R, H_FILLED), tl.float32)
    last_shine = tl.zeros((R, F_FILLED), tl.float32)
    if LAYERS:
        sum_first = tl.zeros((H_FILLED, C_FILLED), tl.float32)
        sum_colour = tl.zeros((F_FILLED, H_FILLED), tl.float32)
        sum_first_bias = tl.zeros((H_FILLED,), tl.float32)
        sum_density = tl.zeros((H_FILLED,), tl.float32)
        sum_colour_bias = tl.zeros((F_FILLED,), tl.float32)
        sum_sigma = tl.zeros((R,), tl.float32)
    if RAYS:
        sum_ox, sum_oy, sum_oz = tl.zeros((R,), tl.float32), tl.zeros((R,), tl.float32), tl.zeros((R,), tl.float32)
        sum_dx, sum_dy, sum_dz = tl.zeros((R,), tl.float32), tl.zeros((R,), tl.float32), tl.zeros((R,), tl.float32)
    # One turn more than samples: the interval behind the last one has no length, and closes it.
    for n in range(samples + 1):
        t = tl.load(depths + ray * samples + tl.minimum(n, samples - 1), mask=real, other=0.0)
        x = _lookup(
            planes, ox + t * dx, oy + t * dy, oz + t * dz, height, width, next_plane, next_row, next_texel, scale, channel,
            ACROSS, DOWN, C, C_FILLED, R,
        )  # fmt: skip
        hidden = _hidden(x, to_hidden, hidden_bias, PRECISION)
        sigma = tl.sum(hidden * to_density[None, :], 1) + raw_bias
        shine = _sigmoid(tl.dot(hidden, to_colour, input_precision=PRECISION) + shine_bias[None, :])
        weight, optical, growth = _step(sigma, last_sigma, t, last_t, passed)
        passed += optical
        s = constant + towards_moment * (0.5 * (t + last_t)) + 0.5 * tl.sum(towards * (shine + last_shine), 1)
        behind -= weight * s
        to_sigma = 0.5 * growth * (tl.exp(-passed) * s - behind)  # of either end of the interval

        # The sample before this one.
        gradient = last_to_sigma + to_sigma
        share = 0.5 * (last_weight + weight)
        to_shine = share[:, None] * towards * last_shine * (1.0 - last_shine)  # before the sigmoid
        to_units = tl.dot(to_shine, tl.trans(to_colour), input_precision=PRECISION) + gradient[:, None] * to_density[None, :]
        to_units *= 1.0 - tl.exp(-last_hidden)  # softplus' slope, by its value
        if LAYERS:
            sum_first += tl.dot(tl.trans(to_units), last_x, input_precision=PRECISION)
            sum_colour += tl.dot(tl.trans(to_shine), last_hidden, input_precision=PRECISION)
            sum_first_bias += tl.sum(to_units, 0)
            sum_colour_bias += tl.sum(to_shine, 0)
            sum_density += tl.sum(gradient[:, None] * last_hidden, 0)
            sum_sigma += gradient
        if PLANES or RAYS:
            to_x = tl.dot(to_units, tl.trans(to_hidden), input_precision=PRECISION) * (1.0 / 3.0)
            px, py, pz = ox + last_t * dx, oy + last_t * dy, oz + last_t * dz
            exists = real & (n > 0)
            for plane in range(3):
                across, down = _axis(plane, ACROSS), _axis(plane, DOWN)
                column, right = _along(_coordinate(px, py, pz, across), width, scale)
                row, lower = _along(_coordinate(px, py, pz, down), height, scale)
                if RAYS:
                    to_across, to_down = tl.zeros((R,), tl.float32), tl.zeros((R,), tl.float32)
                for tap in tl.static_range(4):
                    of_row = lower if tap >= 2 else 1.0 - lower
                    of_column = right if tap % 2 else 1.0 - right
                    if PLANES:
                        begin, inside = _where(row + tap // 2, column + tap % 2, height, width, next_row, next_texel)
                        tl.atomic_add(
                            to_planes + plane * next_plane + begin[:, None] + channel[None, :],
                            (of_row * of_column)[:, None] * to_x,
                            mask=(inside & exists)[:, None] & (channel < C)[None, :],
                            sem="relaxed",
                        )
                    if RAYS:
                        value = _texels(
                            planes + plane * next_plane, row + tap // 2, column + tap % 2,
                            height, width, next_row, next_texel, channel, C,
                        )  # fmt: skip
                        pull = tl.sum(value * to_x, 1)
                        to_across += pull * of_row * (1.0 if tap % 2 else -1.0)
                        to_down += pull * of_column * (1.0 if tap >= 2 else -1.0)
                if RAYS:
                    to_across *= 0.5 * scale * width
                    to_down *= 0.5 * scale * height
                    to_px = tl.where(across == 0, to_across, 0.0) + tl.where(down == 0, to_down, 0.0)
                    to_py = tl.where(across == 1, to_across, 0.0) + tl.where(down == 1, to_down, 0.0)
                    to_pz = tl.where(across == 2, to_across, 0.0) + tl.where(down == 2, to_down, 0.0)
                    sum_ox, sum_oy, sum_oz = sum_ox + to_px, sum_oy + to_py, sum_oz + to_pz
                    sum_dx, sum_dy, sum_dz = sum_dx + last_t * to_px, sum_dy + last_t * to_py, sum_dz + last_t * to_pz
        last_t, last_sigma, last_x, last_hidden, last_shine = t, sigma, x, hidden, shine
        last_weight, last_to_sigma = weight, to_sigma

    if LAYERS:
        # One after the other in memory, as `gpu._Layout` cuts them apart again.
        copy = (tl.program_id(0) + tl.program_id(1) * tl.num_programs(0)) % COPIES
        to = to_layers + copy * (H_FILLED * C_FILLED + F_FILLED * H_FILLED + 2 * H_FILLED + F_FILLED + 1)
        tl.atomic_add(to + unit[:, None] * C_FILLED + channel[None, :], sum_first, sem="relaxed")
        to += H_FILLED * C_FILLED
        tl.atomic_add(to + feature[:, None] * H_FILLED + unit[None, :], sum_colour, sem="relaxed")
        to += F_FILLED * H_FILLED
        tl.atomic_add(to + unit, sum_first_bias, sem="relaxed")
        tl.atomic_add(to + H_FILLED + unit, sum_density, sem="relaxed")
        tl.atomic_add(to + 2 * H_FILLED + feature, sum_colour_bias, sem="relaxed")
        tl.atomic_add(to + 2 * H_FILLED + F_FILLED, tl.sum(sum_sigma, 0), sem="relaxed")
    if RAYS:
        tl.store(to_origins + ray * 3, sum_ox, mask=real)
        tl.store(to_origins + ray * 3 + 1, sum_oy, mask=real)
        tl.store(to_origins + ray * 3 + 2, sum_oz, mask=real)
        tl.store(to_directions + ray * 3, sum_dx, mask=real)
        tl.store(to_directions + ray * 3 + 1, sum_dy, mask=real)
        tl.store(to_directions + ray * 3 + 2, sum_dz, mask=real)
