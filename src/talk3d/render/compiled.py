"""The compiled part of `fused`: sampling, decoding and marching tiles of rays, as loops that numba turns into vector code.

Loops run over points or channels, side by side in memory, and do one thing each: only such loops are vectorised. Types are not
annotated, as numba finds them itself. Letters: K points, C channels of one plane, F colour features.
"""

from typing import Any

import numba
import numpy as np
from numba.core import types
from numba.extending import intrinsic

# Points of a tile's pass: what is known of them, some 100 KB, stays in a core's second cache.
_POINTS = 256
# A sample that adds less than this to its ray's colours is not decoded to colours: of a hundred such, a ten-thousandth is lost.
_UNSEEN = np.float32(1e-6)

# Threads run it without the interpreter's lock; sums may be reordered, divisions by zero do not occur.
compiled = numba.njit(fastmath=True, nogil=True, error_model="numpy", cache=True)
# What those are made of becomes a part of them. Functions with a name of their own would be taken from wherever they were
# compiled first: the process that compiles and those that read its results would round differently.
piece = numba.njit(fastmath=True, nogil=True, error_model="numpy", forceinline=True)
U = np.uintp
F = np.float32


@intrinsic
def _float_of_bits(context: Any, bits: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(types.float32))

    return types.float32(types.int32), code


@piece
def exp(x):
    """exp of x <= 0 within 2e-7: Cephes' polynomial on the remainder, the whole powers of two as bits of the exponent."""
    x = max(x, F(-87))
    power = np.floor(x * F(1.44269504) + F(0.5))
    r = x - power * F(0.693359375) + power * F(2.12194440e-4)
    p = F(1.9875691500e-4)
    p = p * r + F(1.3981999507e-3)
    p = p * r + F(8.3334519073e-3)
    p = p * r + F(4.1665795894e-2)
    p = p * r + F(1.6666665459e-1)
    p = p * r + F(5.0000001201e-1)
    return (p * r * r + r + F(1)) * _float_of_bits((np.int32(power) + np.int32(127)) << np.int32(23))  # type: ignore[call-arg]


@piece
def _softplus(x):
    """log(1 + exp(x)) within 5e-7: the logarithm is a polynomial of degree nine in exp(-|x|), fitted at Chebyshev's points."""
    t = exp(-abs(x))
    p = F(0.0051261)
    p = p * t - F(0.02907406)
    p = p * t + F(0.07751609)
    p = p * t - F(0.13602248)
    p = p * t + F(0.19076881)
    p = p * t - F(0.24835399)
    p = p * t + F(0.33318122)
    p = p * t - F(0.49999445)
    p = p * t + F(0.99999997)
    return max(x, F(0)) + p * t


@piece
def dense(weights, bias, x, y, to, count):
    """``y[:, to : to + count] = weights @ x[:, :count] + bias``, four rows by four columns of the weights at a time.

    Loops run over points, so that what they read and write lies side by side, and sixteen products are made of eight numbers.
    """
    for j in range(0, weights.shape[0], 4):
        ya, yb, yc, yd = y[j, to : to + count], y[j + 1, to : to + count], y[j + 2, to : to + count], y[j + 3, to : to + count]
        for k in range(0, weights.shape[1], 4):
            a0, a1, a2, a3 = weights[j, k], weights[j, k + 1], weights[j, k + 2], weights[j, k + 3]
            b0, b1, b2, b3 = weights[j + 1, k], weights[j + 1, k + 1], weights[j + 1, k + 2], weights[j + 1, k + 3]
            c0, c1, c2, c3 = weights[j + 2, k], weights[j + 2, k + 1], weights[j + 2, k + 2], weights[j + 2, k + 3]
            d0, d1, d2, d3 = weights[j + 3, k], weights[j + 3, k + 1], weights[j + 3, k + 2], weights[j + 3, k + 3]
            if k == 0:
                ba, bb, bc, bd = bias[j], bias[j + 1], bias[j + 2], bias[j + 3]
                for i in range(count):
                    x0, x1, x2, x3 = x[0, i], x[1, i], x[2, i], x[3, i]
                    ya[i] = ba + a0 * x0 + a1 * x1 + a2 * x2 + a3 * x3
                    yb[i] = bb + b0 * x0 + b1 * x1 + b2 * x2 + b3 * x3
                    yc[i] = bc + c0 * x0 + c1 * x1 + c2 * x2 + c3 * x3
                    yd[i] = bd + d0 * x0 + d1 * x1 + d2 * x2 + d3 * x3
            else:
                for i in range(count):
                    x0, x1, x2, x3 = x[k, i], x[k + 1, i], x[k + 2, i], x[k + 3, i]
                    ya[i] += a0 * x0 + a1 * x1 + a2 * x2 + a3 * x3
                    yb[i] += b0 * x0 + b1 * x1 + b2 * x2 + b3 * x3
                    yc[i] += c0 * x0 + c1 * x1 + c2 * x2 + c3 * x3
                    yd[i] += d0 * x0 + d1 * x1 + d2 * x2 + d3 * x3


@piece
def along(places, count, texels, scale, step, offsets0, offsets1, shares0, shares1):
    """The two texels around each place along one side of a plane: where they begin, and their shares; 0 for those outside.

    Whole numbers stay floats until the end: the compiler widens integers, and then knows no vector instructions for them.
    """
    last, size = F(texels - 1), F(texels)
    for i in range(count):
        # Texels have their centres at half pixels. Far outside is as good as just outside.
        x = min(max(places[i] * scale * size + F(0.5) * last, F(-2)), size + F(1))
        before = np.floor(x)
        after = before + F(1)
        shares0[i] = after - x if before >= F(0) and before <= last else F(0)
        shares1[i] = x - before if after >= F(0) and after <= last else F(0)
        offsets0[i] = np.int32(min(max(before, F(0)), last) * F(step))
        offsets1[i] = np.int32(min(max(after, F(0)), last) * F(step))


@piece
def taps(points, count, size, axes, sides, side_shares, offsets, shares):
    """Where the four texels around each point [3, K] begin on each plane, and their shares; both [12, K]."""
    height, width, _, scale, next_texel, next_row, next_plane = size
    for plane in range(3):
        across, down = points[axes[plane, 0]], points[axes[plane, 1]]
        along(across, count, width, scale, next_texel, sides[0], sides[1], side_shares[0], side_shares[1])
        along(down, count, height, scale, next_row, sides[2], sides[3], side_shares[2], side_shares[3])
        for tap in range(4):
            column, row = sides[tap % 2], sides[2 + tap // 2]
            of_column, of_row = side_shares[tap % 2], side_shares[2 + tap // 2]
            begin, share = offsets[4 * plane + tap], shares[4 * plane + tap]
            for i in range(count):
                begin[i] = row[i] + column[i] + plane * next_plane
                share[i] = of_row[i] * of_column[i]


@piece
def lookups(texels, channels, offsets, shares, count, rows, columns):
    """Sums of the three planes' lookups: to ``rows`` [K, C], then turned over to ``columns`` [C, K]."""
    for i in range(count):
        row = rows[i]
        for plane in range(3):
            # Unsigned, or every access would ask whether to count from the end.
            o0, o1 = U(offsets[4 * plane, i]), U(offsets[4 * plane + 1, i])
            o2, o3 = U(offsets[4 * plane + 2, i]), U(offsets[4 * plane + 3, i])
            s0, s1 = shares[4 * plane, i], shares[4 * plane + 1, i]
            s2, s3 = shares[4 * plane + 2, i], shares[4 * plane + 3, i]
            if plane == 0:
                for c in range(U(channels)):
                    row[c] = s0 * texels[o0 + c] + s1 * texels[o1 + c] + s2 * texels[o2 + c] + s3 * texels[o3 + c]
            else:
                for c in range(U(channels)):
                    row[c] += s0 * texels[o0 + c] + s1 * texels[o1 + c] + s2 * texels[o2 + c] + s3 * texels[o3 + c]
    for start in range(0, count, 16):
        for c in range(channels):
            line = columns[c]
            for k in range(16):
                line[start + k] = rows[start + k, c]


@piece
def _listen(hidden, to_density, bias, density, to, count):
    """Softplus of the hidden units of columns ``to : to + count``, in place, and their raw densities."""
    found = density[to : to + count]
    found[:] = bias
    for j in range(hidden.shape[0]):
        units, weight = hidden[j, to : to + count], to_density[j]
        for i in range(count):
            units[i] = _softplus(units[i])
            found[i] += weight * units[i]


@piece
def interval_weights(density, depths, samples, count, optical, before):
    """`volume.ray_weights` of rays one after the other, ``samples`` each, ``count`` in all; to ``optical``.

    The interval behind a ray's last sample is none, and gets nothing.
    """
    for i in range(count - 1):
        optical[i] = _softplus(F(0.5) * (density[i] + density[i + 1]) - F(1)) * (depths[i + 1] - depths[i])
    for start in range(0, count, samples):
        optical[start + samples - 1] = F(0)
        passed = F(0)
        for i in range(start, start + samples):
            before[i] = passed
            passed += optical[i]
    for i in range(count):
        optical[i] = exp(-before[i]) * (F(1) - exp(-optical[i]))


@piece
def _fine_depths(depths, weights, u, found, ranks, running):
    """`rays.importance_depths` of one ray, for ascending quantiles, and how many coarse samples are no deeper than each."""
    bins = len(depths) - 3
    total = F(0)
    for k in range(bins):  # of weights, the first and the last are left out
        here = weights[k + 1]
        running[k] = F(0.5) * (max(weights[k], here) + max(here, weights[k + 2])) + F(0.01001)
        total += running[k]
    k, below, above = 0, F(0), running[0] / total
    for q in range(len(u)):
        while above <= u[q] and k < bins - 1:
            k += 1
            below = above
            above += running[k] / total
        width = above - below
        start, stop = F(0.5) * (depths[k] + depths[k + 1]), F(0.5) * (depths[k + 1] + depths[k + 2])
        depth = start + (u[q] - below) / (width if width >= F(1e-5) else F(1)) * (stop - start)
        found[q] = depth
        ranks[q] = k + 1 + (depths[k + 1] <= depth)


@piece
def _merge(depths, found, ranks, column, fine_column, rays, merged, order, counts):
    """One ray's coarse and fine samples by depth, and the columns they are decoded in, ``rays`` apart; no branch depends on
    depths."""
    counts[:] = 0
    for q in range(len(found)):
        counts[ranks[q]] += 1
        place = q + ranks[q]
        merged[place], order[place] = found[q], fine_column + q * rays
    passed = 0
    for s in range(len(depths)):
        passed += counts[s]
        merged[s + passed], order[s + passed] = depths[s], column + s * rays


@piece
def _shine(colour, shares, count, ends, features):
    """Sigmoid of colour features [F, K], times the share of each sample, summed over the samples of each ray."""
    for f in range(features.shape[1]):
        line = colour[f]
        for i in range(count):
            x = line[i]
            t = exp(-abs(x))
            line[i] = shares[i] * ((F(1) if x >= F(0) else t) / (F(1) + t) * F(1.002) - F(0.001))
        i = 0
        for r in range(len(ends)):
            light = F(0)
            while i < ends[r]:
                light += line[i]
                i += 1
            features[r, f] = light


@piece
def shows(share):
    """Whether a sample that adds this share of its colours to its ray is decoded to colours at all."""
    return share > _UNSEEN


@piece
def rays_of_a_tile(coarse, fine):
    """How many rays are marched together."""
    return max(1, _POINTS // max(coarse, fine))


@piece
def room(coarse, fine, channels, decoder):
    """What `see` works on and leaves: arrays for one tile, used again for the next."""
    first, _, _, _, to_colour, _ = decoder
    units, at_once = first.shape[0], rays_of_a_tile(coarse, fine)
    most, samples = at_once * max(coarse, fine), at_once * (coarse + fine)
    points, offsets, shares = np.empty((3, most), F), np.empty((12, most), np.int32), np.empty((12, most), F)
    sides, side_shares = np.empty((4, most), np.int32), np.empty((4, most), F)
    # Points are turned over in sixteens. The decoder may have more columns than there are channels: there, nothing must stay.
    rows, columns = np.zeros((most + 16, channels), F), np.zeros((first.shape[1], most + 16), F)
    lookup = (points, offsets, shares, sides, side_shares, rows, columns)
    hidden, picked, colour = (
        np.empty((units, samples), F),
        np.empty((units, samples), F),
        np.empty((to_colour.shape[0], samples), F),
    )
    density, raw, depths, merged = np.empty(samples, F), np.empty(samples, F), np.empty(samples, F), np.empty(samples, F)
    weights, scratch, seen_shares = np.empty(samples, F), np.empty(samples, F), np.empty(samples, F)
    order, ranks, counts = np.empty(samples, np.int32), np.empty(samples, np.int32), np.empty(coarse + 1, np.int32)
    seen_columns, ends = np.empty(samples, np.int32), np.empty(at_once, np.int64)
    values = (hidden, picked, colour, density, raw, depths, merged, weights, scratch)
    return lookup, values, (order, ranks, counts), (seen_columns, seen_shares, ends)


@piece
def see(texels, size, axes, origins, directions, given, u, decoder, room, alpha, distance):
    """March a tile of rays: how many of their samples show. What they are made of is left in `room`; opacity, and mean depth
    (not yet clamped) are written.

    Coarse depths are given, as are quantiles of the fine ones, ascending; one line of these may serve all rays.
    """
    first, first_bias, to_density, density_bias, _, _ = decoder
    (points, offsets, shares, sides, side_shares, rows, columns), values, (order, ranks, counts), seen_of = room
    hidden, picked, _, density, raw, depths, merged, weights, scratch = values
    seen_columns, seen_shares, ends = seen_of
    rays, coarse, fine, units = len(origins), given.shape[1], u.shape[1], first.shape[0]
    samples = coarse + fine
    # Depths lie ray by ray, coarse ones before fine ones. What is decoded lies sample by sample, in columns: neighbours are
    # then of neighbouring rays, and read nearly the same texels.
    split, total = rays * coarse, rays * samples
    for r in range(rays):
        depths[r * coarse : (r + 1) * coarse] = given[r]
    for stage in range(2 if fine else 1):
        to, count = (0, coarse) if stage == 0 else (split, fine)
        if stage == 1:
            for r in range(rays):
                for i in range(coarse):
                    raw[r * coarse + i] = density[i * rays + r]
            interval_weights(raw, depths, coarse, split, weights, scratch)
            for r in range(rays):
                of_coarse, of_fine = slice(r * coarse, (r + 1) * coarse), slice(split + r * fine, split + (r + 1) * fine)
                _fine_depths(depths[of_coarse], weights[of_coarse], u[r % len(u)], depths[of_fine], ranks[of_fine], scratch)
        for axis in range(3):
            line = points[axis]
            for r in range(rays):
                origin, direction = origins[r, axis], directions[r, axis]
                for i in range(count):
                    line[i * rays + r] = origin + depths[to + r * count + i] * direction
        taps(points, rays * count, size, axes, sides, side_shares, offsets, shares)
        lookups(texels, size[2], offsets, shares, rays * count, rows, columns)
        dense(first, first_bias, columns, hidden, to, rays * count)
        _listen(hidden, to_density, density_bias, density, to, rays * count)
    for r in range(rays):
        of_coarse, of_fine = slice(r * coarse, (r + 1) * coarse), slice(split + r * fine, split + (r + 1) * fine)
        of_ray = slice(r * samples, (r + 1) * samples)
        _merge(
            depths[of_coarse], depths[of_fine], ranks[of_fine], r, split + r, rays, merged[of_ray], order[of_ray], counts,
        )  # fmt: skip
    for i in range(total):
        raw[i] = density[order[i]]
    interval_weights(raw, merged, samples, total, weights, scratch)
    seen = 0
    for r in range(rays):
        opacity, mean, last = F(0), F(0), F(0)
        for i in range(r * samples, (r + 1) * samples):
            weight = weights[i]
            seen_columns[seen], seen_shares[seen] = order[i], F(0.5) * (last + weight)
            seen += shows(seen_shares[seen])
            last = weight
            opacity += weight
            mean += weight * F(0.5) * (merged[i] + merged[min(i + 1, total - 1)])
        ends[r] = seen
        alpha[r] = opacity
        distance[r] = mean / opacity if opacity > F(0) else F(0)
    for j in range(units):
        line, chosen = hidden[j], picked[j]
        for i in range(seen):
            chosen[i] = line[U(seen_columns[i])]
    return seen


@compiled
def render_rays(texels, size, axes, origins, directions, given, u, decoder, features, alpha, distance):
    """Some rays of one picture: composited features in 0..1, opacity, and mean depth (not yet clamped) are written."""
    own = room(given.shape[1], u.shape[1], size[2], decoder)
    _, (_, picked, colour, _, _, _, _, _, _), _, (_, seen_shares, ends) = own
    _, _, _, _, to_colour, colour_bias = decoder
    at_once = rays_of_a_tile(given.shape[1], u.shape[1])
    for begin in range(0, len(origins), at_once):
        tile = slice(begin, min(begin + at_once, len(origins)))
        quantiles = u if len(u) == 1 else u[tile]
        seen = see(
            texels, size, axes, origins[tile], directions[tile], given[tile], quantiles, decoder, own, alpha[tile],
            distance[tile],
        )  # fmt: skip
        dense(to_colour, colour_bias, picked, colour, 0, seen)
        _shine(colour, seen_shares, seen, ends[: tile.stop - tile.start], features[tile])
