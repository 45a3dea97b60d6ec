"""The compiled part of `learnt`: how much colours, opacity and depth of rays change with planes, decoder and rays.

Each tile is marched again, which costs less than keeping what its samples were. Samples that do not show hardly count for what
gradients say either: opacity in front of a sample and its own are factors of both. Their gradients are taken as zero.
Letters: K samples that show, C channels of one plane, F colour features, J hidden units.
"""

import numpy as np

from talk3d.render.compiled import F, U, along, compiled, dense, exp, lookups, piece, rays_of_a_tile, room, see, shows, taps


@piece
def _sigmoid(x):
    t = exp(-abs(x))
    return (F(1) if x >= F(0) else t) / (F(1) + t)


@piece
def _colours(colour, shares, ends, features, wanted, light):
    """Colour features [F, K] before their sigmoid become their gradients; what each sample's share is worth, to `light`."""
    count = ends[-1] if len(ends) else 0
    light[:count] = F(0)
    for f in range(features):
        line, i = colour[f], 0
        for r in range(len(ends)):
            wish = wanted[r, f]
            for k in range(i, ends[r]):
                value = _sigmoid(line[k])
                light[k] += wish * (value * F(1.002) - F(0.001))
                line[k] = wish * shares[k] * F(1.002) * value * (F(1) - value)
            i = ends[r]
    colour[features:, :count] = F(0)


@piece
def _densities(
    raw, depths, weights, before, light, first, wanted_alpha, wanted_distance, alpha, distance, wish, found, seen_depths
):
    """One ray, from its merged samples: gradients of raw densities of those that show, and their depths; how many there were.

    `volume.ray_weights` backwards. `wish` is room for as many numbers as there are samples.
    """
    last = len(raw) - 1
    shown, before_share = first, F(0)
    for i in range(last + 1):  # what the two halves of each interval's weight are worth
        share = F(0.5) * (before_share + weights[i])
        before_share = weights[i]
        wish[i] = F(0)
        if shows(share):
            wish[i] = light[shown]
            shown += 1
    nearer = wanted_distance / alpha if alpha > F(0) else F(0)
    behind, carried = F(0), F(0)
    for i in range(last - 1, -1, -1):
        step = depths[i + 1] - depths[i]
        value = F(0.5) * (wish[i] + wish[i + 1]) + wanted_alpha
        value += nearer * (F(0.5) * (depths[i] + depths[i + 1]) - distance)
        optical = value * exp(-before[i + 1]) - behind
        behind += value * weights[i]
        middle = F(0.5) * optical * step * _sigmoid(F(0.5) * (raw[i] + raw[i + 1]) - F(1))
        wish[i + 1] = carried + middle
        carried = middle
    wish[0] = carried
    shown, before_share = first, F(0)
    for i in range(last + 1):
        share = F(0.5) * (before_share + weights[i])
        before_share = weights[i]
        if shows(share):
            found[shown], seen_depths[shown] = wish[i], depths[i]
            shown += 1
    return shown - first


@piece
def _outer(a, b, count, to):
    """``to += a[:, :count] @ b[:, :count].T``."""
    for j in range(to.shape[0]):
        of_j = a[j]
        for c in range(to.shape[1]):
            of_c, total = b[c], F(0)
            for i in range(count):
                total += of_j[i] * of_c[i]
            to[j, c] += total


@piece
def _add_up(a, count, to):
    """``to += a[:, :count].sum(1)``."""
    for j in range(len(to)):
        line, total = a[j], F(0)
        for i in range(count):
            total += line[i]
        to[j] += total


@piece
def _spread(texels, size, axes, points, count, rows, sides, side_shares, to_planes, to_points):
    """Gradients of lookups [K, C] to the texels they read, and to where they read them [3, K]."""
    height, width, channels, scale, next_texel, next_row, next_plane = size
    to_points[:, :count] = F(0)
    for plane in range(3):
        across, down = axes[plane, 0], axes[plane, 1]
        along(points[across], count, width, scale, next_texel, sides[0], sides[1], side_shares[0], side_shares[1])
        along(points[down], count, height, scale, next_row, sides[2], sides[3], side_shares[2], side_shares[3])
        for i in range(count):
            left, right, top, bottom = side_shares[0, i], side_shares[1, i], side_shares[2, i], side_shares[3, i]
            row = rows[i]
            base = plane * next_plane
            o0, o1 = U(base + sides[2, i] + sides[0, i]), U(base + sides[2, i] + sides[1, i])
            o2, o3 = U(base + sides[3, i] + sides[0, i]), U(base + sides[3, i] + sides[1, i])
            s0, s1, s2, s3 = top * left, top * right, bottom * left, bottom * right
            d0, d1, d2, d3 = F(0), F(0), F(0), F(0)
            for c in range(U(channels)):
                wish = row[c]
                d0 += wish * texels[o0 + c]
                d1 += wish * texels[o1 + c]
                d2 += wish * texels[o2 + c]
                d3 += wish * texels[o3 + c]
            if len(to_planes):
                # One after the other: taps outside the plane lie on others.
                for c in range(U(channels)):
                    to_planes[o0 + c] += s0 * row[c]
                for c in range(U(channels)):
                    to_planes[o1 + c] += s1 * row[c]
                for c in range(U(channels)):
                    to_planes[o2 + c] += s2 * row[c]
                for c in range(U(channels)):
                    to_planes[o3 + c] += s3 * row[c]
            # A texel beyond the plane is nothing, wherever one looks.
            d0, d2 = (d0, d2) if left > F(0) else (F(0), F(0))
            d1, d3 = (d1, d3) if right > F(0) else (F(0), F(0))
            to_points[across, i] += scale * F(width) * (top * (d1 - d0) + bottom * (d3 - d2))
            d0, d1 = (d0, d1) if top > F(0) else (F(0), F(0))
            d2, d3 = (d2, d3) if bottom > F(0) else (F(0), F(0))
            to_points[down, i] += scale * F(height) * (left * (d2 - d0) + right * (d3 - d1))


@compiled
def differentiate_rays(
    texels, size, axes, origins, directions, given, u, decoder, turned, wanted, to_planes, to_origins, to_directions, to_decoder
):  # fmt: skip
    """Gradients of some rays of one picture are added up.

    `wanted` are those of features, opacity and mean depth as `render_rays` writes them; `turned` the decoder's two matrices
    transposed. `to_planes` is memory like the planes', `to_decoder` are arrays like the decoder's; empty where these do not
    learn.
    """
    own = room(given.shape[1], u.shape[1], size[2], decoder)
    _, values, _, (_, seen_shares, ends) = own
    _, picked, colour, _, raw, _, merged, weights, before = values
    first, _, to_density, _, to_colour, colour_bias = decoder
    first_turned, colour_turned = turned
    of_features, of_alpha, of_distance = wanted
    of_first, of_first_bias, of_density, of_density_bias, of_colour, of_colour_bias = to_decoder
    learns = of_first.size > 0
    samples, at_once = given.shape[1] + u.shape[1], rays_of_a_tile(given.shape[1], u.shape[1])
    most = at_once * samples
    light, density, wish, depths = np.empty(most, F), np.empty((1, most), F), np.empty(samples, F), np.empty(most, F)
    alpha, distance = np.empty(at_once, F), np.empty(at_once, F)
    points, to_points = np.empty((3, most), F), np.empty((3, most), F)
    offsets, shares = np.empty((12, most), np.int32), np.empty((12, most), F)
    sides, side_shares = np.empty((4, most), np.int32), np.empty((4, most), F)
    rows, columns = np.zeros((most + 16, first.shape[1]), F), np.zeros((first.shape[1], most + 16), F)
    hidden = np.empty((first.shape[0], most), F)
    nothing = np.zeros(max(first.shape[0], first.shape[1]), F)
    for begin in range(0, len(origins), at_once):
        stop = min(begin + at_once, len(origins))
        tile, rays = slice(begin, stop), stop - begin
        quantiles = u if len(u) == 1 else u[tile]
        seen = see(
            texels, size, axes, origins[tile], directions[tile], given[tile], quantiles, decoder, own, alpha[:rays],
            distance[:rays],
        )  # fmt: skip
        dense(to_colour, colour_bias, picked, colour, 0, seen)
        _colours(colour, seen_shares, ends[:rays], of_features.shape[1], of_features[tile], light)
        shown = 0
        for r in range(rays):
            of_ray = slice(r * samples, (r + 1) * samples)
            found = _densities(
                raw[of_ray], merged[of_ray], weights[of_ray], before[of_ray], light, shown, of_alpha[begin + r],
                of_distance[begin + r], alpha[r], distance[r], wish, density[0], depths,
            )  # fmt: skip
            for axis in range(3):
                origin, direction = origins[begin + r, axis], directions[begin + r, axis]
                for k in range(shown, shown + found):
                    points[axis, k] = origin + depths[k] * direction
            shown += found
        dense(colour_turned, nothing, colour, hidden, 0, seen)
        if learns:
            _outer(colour, picked, seen, of_colour)
            _add_up(colour, seen, of_colour_bias)
            _outer(density, picked, seen, of_density)
            _add_up(density, seen, of_density_bias)
        for j in range(hidden.shape[0]):
            line, units, weight = hidden[j], picked[j], to_density[j]
            for k in range(seen):  # softplus' slope is one minus exp of minus its value
                line[k] = (line[k] + weight * density[0, k]) * (F(1) - exp(-units[k]))
        if learns:
            taps(points, seen, size, axes, sides, side_shares, offsets, shares)
            lookups(texels, size[2], offsets, shares, seen, rows, columns)
            _outer(hidden, columns, seen, of_first)
            _add_up(hidden, seen, of_first_bias)
        dense(first_turned, nothing, hidden, columns, 0, seen)
        for start in range(0, seen, 16):
            for c in range(size[2]):
                line = columns[c]
                for k in range(16):
                    rows[start + k, c] = line[start + k]
        _spread(texels, size, axes, points, seen, rows, sides, side_shares, to_planes, to_points)
        k = 0
        for r in range(rays):
            for axis in range(3):
                total, moment = F(0), F(0)
                for i in range(k, ends[r]):
                    total += to_points[axis, i]
                    moment += to_points[axis, i] * depths[i]
                to_origins[begin + r, axis] += total
                to_directions[begin + r, axis] += moment
            k = ends[r]
