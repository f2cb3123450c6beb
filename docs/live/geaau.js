/**
 * Find faces, align them and predict their action units, as the Python package does: YuNet, five points, crop, network.
 *
 * Runs in browsers, workers and Node; ONNX Runtime is passed in. Every constant comes from `facts`, which the site's
 * build writes from the Python package. Names in capitals and the functions that use them are those of
 * hf_geaau/faces/detector.py, yunet.py, five_points.py, quality.py and models/geaau/cropping_geaau.py.
 *
 * @typedef {{width: number, height: number, channels: number, data: Uint8Array}} Picture Rows of pixels, top first.
 * @typedef {[number, number]} Point x, y in pixels; the center of the first pixel is (0, 0).
 * @typedef {[[number, number, number], [number, number, number]]} Matrix An affine map.
 * @typedef {{box: number[], points: Point[], score: number}} Row A candidate; its box is x, y, width, height.
 * @typedef {object} Face
 * @property {number[]} box Left, top, right, bottom, inside the picture.
 * @property {number} score YuNet's, from 0 to 1.
 * @property {Point[]} points Image-left eye, image-right eye, nose tip, image-left and image-right mouth corner.
 * @property {string[]} quality Of "small", "cut" and "squeezed".
 * @property {[number, number]} pose Roll and yaw in degrees.
 * @property {number[]} [probabilities] Calibrated, one for each of `facts.action_units`.
 * @property {number[]} [intensities] From 0 to 5.
 */

// ---------------------------------------------------------------------------------------------------------- geometry

/** Fit the rotation, scale and shift that bring points onto a target, by least squares (Umeyama 1991).
 * @param {Point[]} source @param {Point[]} target @returns {Matrix} */
export function similarityTransform(source, target) {
  const [x, y] = mean(source);
  const [u, v] = mean(target);
  let spread = 0, a = 0, b = 0;
  source.forEach(([px, py], index) => {
    const dx = px - x, dy = py - y, du = target[index][0] - u, dv = target[index][1] - v;
    spread += dx * dx + dy * dy;
    a += dx * du + dy * dv;
    b += dx * dv - dy * du;
  });
  spread = Math.max(spread, 1e-12);
  a /= spread;
  b /= spread;
  return [[a, -b, u - a * x + b * y], [b, a, v - b * x - a * y]];
}

/** @param {Matrix} matrix @returns {Matrix} */
function inverted([[a, b, c], [d, e, f]]) {
  const determinant = a * e - b * d;
  return [
    [e / determinant, -b / determinant, (b * f - c * e) / determinant],
    [-d / determinant, a / determinant, (c * d - a * f) / determinant],
  ];
}

/** @param {Matrix} matrix @param {Point} point @returns {Point} */
const moved = ([[a, b, c], [d, e, f]], [x, y]) => [a * x + b * y + c, d * x + e * y + f];

/** Transform a row: points exactly, the box by its middle and scale. @param {Row} row @param {Matrix} matrix @returns {Row} */
function mapped({ box: [x, y, width, height], points, score }, matrix) {
  const [left, top] = moved(matrix, [x + width / 2, y + height / 2]);
  const scale = scaleOf(matrix);
  const box = [left - (scale * width) / 2, top - (scale * height) / 2, scale * width, scale * height];
  return { box, points: points.map((point) => moved(matrix, point)), score };
}

const scaleOf = ([[a, b], [d, e]]) => Math.sqrt(Math.abs(a * e - b * d));
const mean = (points) => [0, 1].map((axis) => points.reduce((sum, point) => sum + point[axis], 0) / points.length);
const span = ([x, y], [u, v]) => Math.hypot(u - x, v - y);
const middle = ({ box: [x, y, width, height] }) => [x + width / 2, y + height / 2];
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

/** Mean distance of corresponding points as a share of the distance between the others' eyes. */
function distance(points, others) {
  const eyes = Math.max(span(others[0], others[1]), 1e-6);
  return points.reduce((sum, point, index) => sum + span(point, others[index]), 0) / points.length / eyes;
}

/** Round half to even, as Python does. */
function round(value) {
  const below = Math.floor(value);
  if (value - below === 0.5) return below + (below % 2);
  return Math.round(value);
}

/** Intersection over union of two boxes: x, y, width, height. */
function overlap([x, y, width, height], [left, top, across, down]) {
  const shared =
    Math.max(0, Math.min(x + width, left + across) - Math.max(x, left)) *
    Math.max(0, Math.min(y + height, top + down) - Math.max(y, top));
  return shared / (width * height + across * down - shared);
}

/** Keep rows that overlap none of a higher score, best first. @param {Row[]} rows @param {(box: number[]) => number[]} [boxOf] */
function suppressOverlaps(rows, limit, boxOf = (box) => box) {
  const kept = [];
  for (const row of [...rows].sort((one, other) => other.score - one.score)) {
    if (kept.every((other) => overlap(boxOf(row.box), boxOf(other.box)) <= limit)) kept.push(row);
  }
  return kept;
}

/** @param {Face} face @returns {Row} */
function rowOf({ box: [left, top, right, bottom], points, score }) {
  return { box: [left, top, right - left, bottom - top], points, score };
}

/** @param {Face} face */
const area = ({ box: [left, top, right, bottom] }) => (right - left) * (bottom - top);

// ---------------------------------------------------------------------------------------------------------- pictures

/** Return a canvas's pixels without their alpha. @param {{width: number, height: number, data: Uint8ClampedArray}} image @returns {Picture} */
export function rgbPicture({ width, height, data }) {
  const picture = blank(width, height, 3);
  for (let from = 0, to = 0; from < data.length; from += 4, to += 3) {
    picture.data[to] = data[from];
    picture.data[to + 1] = data[from + 1];
    picture.data[to + 2] = data[from + 2];
  }
  return picture;
}

/** @returns {Picture} A black picture. */
const blank = (width, height, channels) => ({ width, height, channels, data: new Uint8Array(width * height * channels) });

/** Copy a rectangle, which may reach beyond the picture: it is black there. @param {Picture} picture @returns {Picture} */
function cutOut(picture, left, top, right, bottom) {
  const { width, height, channels, data } = picture;
  const result = blank(right - left, bottom - top, channels);
  const first = Math.max(left, 0), last = Math.min(right, width);
  for (let y = Math.max(top, 0); y < Math.min(bottom, height) && first < last; y++) {
    const row = data.subarray((y * width + first) * channels, (y * width + last) * channels);
    result.data.set(row, ((y - top) * result.width + first - left) * channels);
  }
  return result;
}

/** @param {Picture} picture @returns {Picture} By the weights of ITU-R BT.601, in OpenCV's integers. */
function grayPicture({ width, height, data }) {
  const gray = blank(width, height, 1);
  for (let index = 0; index < gray.data.length; index++) {
    gray.data[index] = (9798 * data[3 * index] + 19235 * data[3 * index + 1] + 3735 * data[3 * index + 2] + 16384) >> 15;
  }
  return gray;
}

/** For one axis: source and target places, and the share of one in the other.
 * @returns {{from: Int32Array, to: Int32Array, share: Float32Array}} */
function areaTable(size, target) {
  const scale = 1 / (target / size), entries = [];
  for (let index = 0; index < target; index++) {
    const start = index * scale, end = start + scale, cell = Math.min(scale, size - start);
    const last = Math.min(Math.floor(end), size - 1), first = Math.min(Math.ceil(start), last);
    if (first - start > 1e-3) entries.push([first - 1, index, (first - start) / cell]);
    for (let pixel = first; pixel < last; pixel++) entries.push([pixel, index, 1 / cell]);
    if (end - last > 1e-3) entries.push([last, index, Math.min(end - last, 1, cell) / cell]);
  }
  const column = (number) => entries.map((entry) => entry[number]);
  return { from: Int32Array.from(column(0)), to: Int32Array.from(column(1)), share: Float32Array.from(column(2)) };
}

/** Shrink by area, to the bit as OpenCV's INTER_AREA. @param {Picture} picture @returns {Picture} */
function shrunkTo(picture, width, height) {
  const { channels, data } = picture, result = blank(width, height, channels);
  const across = areaTable(picture.width, width), down = areaTable(picture.height, height), { fround } = Math;
  const sources = across.from.map((place) => place * channels), targets = across.to.map((place) => place * channels);
  const shares = across.share, count = shares.length;
  const row = new Float32Array(width * channels), sums = new Float32Array(width * channels);
  for (let index = 0; index < down.to.length; index++) {
    const start = down.from[index] * picture.width * channels, share = down.share[index], y = down.to[index];
    row.fill(0);
    for (let entry = 0; entry < count; entry++) {
      const from = start + sources[entry], to = targets[entry], part = shares[entry];
      row[to] += fround(part * data[from]);
      if (channels === 1) continue;
      row[to + 1] += fround(part * data[from + 1]);
      row[to + 2] += fround(part * data[from + 2]);
    }
    for (let x = 0; x < row.length; x++) sums[x] += fround(share * row[x]);
    if (down.to[index + 1] === y) continue;
    for (let x = 0, to = y * row.length; x < row.length; x++, to++) result.data[to] = round(sums[x]);
    sums.fill(0);
  }
  return result;
}

/** Enlarge linearly, in the 11-bit integers of OpenCV's INTER_LINEAR. @param {Picture} picture @returns {Picture} */
function enlargedTo(picture, width, height) {
  const { channels, data } = picture, result = blank(width, height, channels), length = picture.width * channels;
  const table = (size, target) => Array.from({ length: target }, (_, index) => {
    const place = clamp((index + 0.5) * (size / target) - 0.5, 0, size - 1), first = Math.floor(place);
    return [first, Math.min(first + 1, size - 1), round((1 - place + first) * 2048), round((place - first) * 2048)];
  });
  const columns = table(picture.width, width);
  table(picture.height, height).forEach(([above, below, upper, lower], y) => {
    columns.forEach(([left, right, nearer, farther], x) => {
      for (let channel = 0; channel < channels; channel++) {
        const [first, second] = [above, below].map((row) => {
          const start = row * length + channel;
          return (data[start + left * channels] * nearer + data[start + right * channels] * farther) >> 4;
        });
        result.data[(y * width + x) * channels + channel] = (((first * upper) >> 16) + ((second * lower) >> 16) + 2) >> 2;
      }
    });
  });
  return result;
}

/** @param {Picture} picture @returns {Picture} */
function resized(picture, width, height) {
  if (width === picture.width && height === picture.height) return picture;
  return (width > picture.width || height > picture.height ? enlargedTo : shrunkTo)(picture, width, height);
}

/** Return a scaled copy with a black margin (a share of its longer side), and the matrix copy -> original.
 * @param {Picture} picture @returns {[Picture, Matrix]} */
function scaled(picture, scale, margin = 0) {
  const width = Math.max(1, round(picture.width * scale)), height = Math.max(1, round(picture.height * scale));
  const edge = round(margin * Math.max(width, height));
  let copy = resized(picture, width, height);
  if (edge) copy = cutOut(copy, -edge, -edge, width + edge, height + edge);
  const x = picture.width / width, y = picture.height / height;
  return [copy, [[x, 0, (x - 1) / 2 - edge * x], [0, y, (y - 1) / 2 - edge * y]]];
}

/** Warp bilinearly, black beyond the picture, to the bit as OpenCV's warpAffine: in steps of 1/32 pixel.
 * @param {Picture} picture @param {Matrix} matrix @returns {Picture} */
function warped(picture, matrix, side) {
  const { width, height, channels, data } = picture;
  const [[a, b, c], [d, e, f]] = inverted(matrix);
  const result = blank(side, side, channels), length = width * channels;
  const columnsX = Int32Array.from({ length: side }, (_, x) => round(a * x * 1024));
  const columnsY = Int32Array.from({ length: side }, (_, x) => round(d * x * 1024));
  for (let y = 0, to = 0; y < side; y++) {
    const rowX = round((b * y + c) * 1024) + 16, rowY = round((e * y + f) * 1024) + 16;
    for (let x = 0; x < side; x++, to += channels) {
      const u = (rowX + columnsX[x]) >> 5, v = (rowY + columnsY[x]) >> 5;
      const left = u >> 5, top = v >> 5, across = u & 31, down = v & 31;
      if (left < -1 || top < -1 || left >= width || top >= height) continue;
      // The shares of the four pixels around the place; none of those beyond the picture.
      const upper = top >= 0 ? 32 - down : 0, lower = top + 1 < height ? down : 0;
      const near = left >= 0 ? 32 - across : 0, far = left + 1 < width ? across : 0;
      let first = (upper ? top * length : 0) + (near ? left * channels : 0);
      const right = near && far ? channels : 0, below = upper && lower ? length : 0;
      if (!upper && lower) first += (top + 1) * length;
      if (!near && far) first += (left + 1) * channels;
      for (let channel = 0; channel < channels; channel++, first++) {
        const above = near * data[first] + far * data[first + right];
        const under = near * data[first + below] + far * data[first + below + right];
        result.data[to + channel] = (upper * above + lower * under + 512) >> 10;
      }
    }
  }
  return result;
}

/** @param {Picture} picture @returns {Picture} Its mirror image. */
function flipped(picture) {
  const { width, height, channels, data } = picture;
  const result = blank(width, height, channels);
  for (let y = 0, to = 0; y < height; y++) {
    for (let x = width - 1; x >= 0; x--, to += channels) {
      const from = (y * width + x) * channels;
      for (let channel = 0; channel < channels; channel++) result.data[to + channel] = data[from + channel];
    }
  }
  return result;
}

// ----------------------------------------------------------------------------------- the crop, exactly as Pillow cuts

const PRECISION = 22; // bits behind the point of Pillow's weights: Resample.c, PRECISION_BITS

/** Pillow's integer weights of a bilinear resize with antialiasing. */
function pillowWeights(size, target) {
  const scale = size / target, support = Math.max(scale, 1);
  return Array.from({ length: target }, (_, index) => {
    const center = (index + 0.5) * scale;
    const first = Math.max(0, Math.trunc(center - support + 0.5)), last = Math.min(size, Math.trunc(center + support + 0.5));
    const weights = [];
    for (let pixel = first; pixel < last; pixel++) weights.push(Math.max(0, 1 - Math.abs((pixel - center + 0.5) / support)));
    const sum = weights.reduce((total, weight) => total + weight, 0);
    return { first, weights: weights.map((weight) => Math.trunc((weight / sum) * 2 ** PRECISION + 0.5)) };
  });
}

/** Resize along one axis. @param {Picture} picture @returns {Picture} */
function pillowAxis(picture, target, isAcross) {
  const { width, height, channels, data } = picture;
  const result = isAcross ? blank(target, height, channels) : blank(width, target, channels);
  const weights = pillowWeights(isAcross ? width : height, target), step = (isAcross ? 1 : width) * channels;
  for (let y = 0, to = 0; y < result.height; y++) {
    for (let x = 0; x < result.width; x++) {
      const { first, weights: shares } = weights[isAcross ? x : y];
      const start = (isAcross ? y * width + first : first * width + x) * channels;
      for (let channel = 0; channel < channels; channel++, to++) {
        let sum = 1 << (PRECISION - 1);
        for (let index = 0, from = start + channel; index < shares.length; index++, from += step) sum += shares[index] * data[from];
        result.data[to] = clamp(sum >> PRECISION, 0, 255);
      }
    }
  }
  return result;
}

/** Resize as Pillow's `resize(…, BILINEAR)`. @param {Picture} picture @returns {Picture} */
function pillowResized(picture, width, height) {
  const across = width === picture.width ? picture : pillowAxis(picture, width, true);
  return height === picture.height ? across : pillowAxis(across, height, false);
}

/** Warp as Pillow's `transform(…, AFFINE, …, BILINEAR)`: values are cut off, not rounded.
 * @param {Picture} picture @param {Matrix} inverse From the result to the picture. @returns {Picture} */
function pillowWarped(picture, [[a, b, c], [d, e, f]], width, height) {
  const { channels, data } = picture, lastColumn = picture.width - 1, lastRow = picture.height - 1;
  const result = blank(width, height, channels);
  for (let y = 0, to = 0; y < height; y++) {
    for (let x = 0; x < width; x++, to += channels) {
      const u = a * (x + 0.5) + b * (y + 0.5) + c, v = d * (x + 0.5) + e * (y + 0.5) + f;
      if (u < 0 || u >= picture.width || v < 0 || v >= picture.height) continue;
      const left = Math.floor(u - 0.5), top = Math.floor(v - 0.5), across = u - 0.5 - left, down = v - 0.5 - top;
      const upper = clamp(top, 0, lastRow) * picture.width, lower = clamp(top + 1, 0, lastRow) * picture.width;
      const first = (upper + clamp(left, 0, lastColumn)) * channels, second = (upper + clamp(left + 1, 0, lastColumn)) * channels;
      const third = (lower + clamp(left, 0, lastColumn)) * channels, fourth = (lower + clamp(left + 1, 0, lastColumn)) * channels;
      for (let channel = 0; channel < channels; channel++) {
        const above = data[first + channel] + (data[second + channel] - data[first + channel]) * across;
        const below = data[third + channel] + (data[fourth + channel] - data[third + channel]) * across;
        result.data[to + channel] = above + (below - above) * down;
      }
    }
  }
  return result;
}

/** Cut one crop: the face's surroundings, shrunk with antialiasing, then warped bilinearly.
 * @param {Picture} picture @param {Matrix} matrix From pixels of the picture to pixels of the crop.
 * @param {[number, number]} size Height and width of the crop. @returns {Picture} */
export function cutCrop(picture, matrix, [height, width], oversampling) {
  const shrink = Math.min(1, scaleOf(matrix) * oversampling), margin = 2 / shrink;
  const inverse = inverted(matrix);
  const corners = [[0, 0], [width, 0], [0, height], [width, height]].map((corner) => moved(inverse, corner));
  const [left, top] = [0, 1].map((axis) => Math.floor(Math.min(...corners.map((corner) => corner[axis])) - margin));
  const [right, bottom] = [0, 1].map((axis) => Math.ceil(Math.max(...corners.map((corner) => corner[axis])) + margin));
  const across = Math.max(1, round((right - left) * shrink)), down = Math.max(1, round((bottom - top) * shrink));
  const region = pillowResized(cutOut(picture, left, top, right, bottom), across, down);
  inverse[0][2] -= left;
  inverse[1][2] -= top;
  const [x, y] = [across / (right - left), down / (bottom - top)];
  return pillowWarped(region, [inverse[0].map((value) => value * x), inverse[1].map((value) => value * y)], width, height);
}

// ------------------------------------------------------------------------------------------------------- five points

const CELL = 8, BLOCK = 16, BINS = 9; // of the histograms of oriented gradients: five_points.py, _histograms

/** Return histograms of oriented gradients as OpenCV's HOGDescriptor computes them. @param {Picture} crop Gray. */
function histograms({ width, height, data }) {
  const bins = new Uint8Array(2 * width * height), sizes = new Float32Array(2 * width * height);
  const mirror = (place, size) => (place < 0 ? -place : place >= size ? 2 * size - 2 - place : place);
  for (let y = 0, index = 0; y < height; y++) {
    const above = mirror(y - 1, height) * width, below = mirror(y + 1, height) * width;
    for (let x = 0; x < width; x++, index += 2) {
      const dx = data[y * width + mirror(x + 1, width)] - data[y * width + mirror(x - 1, width)];
      const dy = data[below + x] - data[above + x];
      const size = Math.sqrt(dx * dx + dy * dy), place = (angleOf(dx, dy) * BINS) / 180 - 0.5, bin = Math.floor(place);
      bins[index] = (bin + 2 * BINS) % BINS;
      bins[index + 1] = (bin + 1) % BINS;
      sizes[index] = size * (1 - (place - bin));
      sizes[index + 1] = size * (place - bin);
    }
  }
  const features = [];
  for (let left = 0; left + BLOCK <= width; left += CELL) {
    for (let top = 0; top + BLOCK <= height; top += CELL) features.push(...block(bins, sizes, width, left, top));
  }
  return features;
}

/** The direction of a gradient in degrees, from 0 to 360, by OpenCV's polynomial (fastAtan2). */
function angleOf(x, y) {
  const isFlat = Math.abs(x) >= Math.abs(y), [small, large] = isFlat ? [Math.abs(y), Math.abs(x)] : [Math.abs(x), Math.abs(y)];
  const c = small / (large + Number.EPSILON), square = c * c;
  const turn = (((-0.04432655554792128 * square + 0.1555786518463281) * square - 0.3258083974640975) * square + 0.9997878412794807) * c;
  let angle = (turn * 180) / Math.PI;
  if (!isFlat) angle = 90 - angle;
  if (x < 0) angle = 180 - angle;
  return y < 0 ? 360 - angle : angle;
}

/** The normalized histograms of the 2×2 cells of one block, column by column. */
function block(bins, sizes, width, left, top) {
  const cells = BLOCK / CELL, values = new Float32Array(cells * cells * BINS);
  const spread = 2 * ((2 * BLOCK) / 8) ** 2; // OpenCV's default Gaussian over the block
  for (let y = 0; y < BLOCK; y++) {
    for (let x = 0; x < BLOCK; x++) {
      const index = 2 * ((top + y) * width + left + x);
      const weight = Math.exp(-((x - BLOCK / 2) ** 2 + (y - BLOCK / 2) ** 2) / spread);
      const cellX = (x + 0.5) / CELL - 0.5, cellY = (y + 0.5) / CELL - 0.5;
      for (let column = Math.floor(cellX); column <= Math.floor(cellX) + 1; column++) {
        for (let row = Math.floor(cellY); row <= Math.floor(cellY) + 1; row++) {
          if (column < 0 || column >= cells || row < 0 || row >= cells) continue;
          const share = weight * (1 - Math.abs(cellX - column)) * (1 - Math.abs(cellY - row)), start = (column * cells + row) * BINS;
          values[start + bins[index]] += share * sizes[index];
          values[start + bins[index + 1]] += share * sizes[index + 1];
        }
      }
    }
  }
  const norm = () => Math.sqrt(values.reduce((sum, value) => sum + value * value, 0));
  let scale = 1 / (norm() + 0.1 * values.length);
  for (let index = 0; index < values.length; index++) values[index] = Math.min(values[index] * scale, 0.2);
  scale = 1 / (norm() + 1e-3);
  return values.map((value) => value * scale);
}

// ---------------------------------------------------------------------------------------------------------- detector

// Of a face of the frame before, less of its surroundings is needed, and it is shrunk only where it is very large: eye
// distances to each side, and pixels between the eyes; our choice.
const TRACKED = { reach: 2.6, eyes: 160 };

/** Find the faces of pictures and predict their action units. */
export class ActionUnitDetector {
  /**
   * @param {any} ort The module onnxruntime-web.
   * @param {any} facts The content of facts.json.
   * @param {{yunet: any, network: any, cascade: Float32Array}} parts ONNX Runtime sessions and the weights of the
   *   five-point cascade, as the site's build writes them.
   */
  constructor(ort, facts, { yunet, network, cascade }) {
    this.ort = ort;
    this.facts = facts;
    this.yunet = yunet;
    this.network = network;
    const steps = facts.cascade_shape[0], length = cascade.length / steps;
    this.cascade = Array.from({ length: steps }, (_, step) => cascade.subarray(step * length, (step + 1) * length));
  }

  /**
   * Find and analyze the faces of a picture, largest first.
   * @param {{width: number, height: number, data: Uint8ClampedArray}} image RGBA, such as a canvas's ImageData.
   * @param {Face[]} [near] The faces of the frame before: these are looked for at their last places, much cheaper.
   * @param {boolean} [isSearch] Look for other faces as well. Where a face of `near` is lost, this is always done.
   * @returns {Promise<{faces: Face[], ms: {find: number, crop: number, network: number}}>}
   */
  async detect(image, near = [], isSearch = !near.length) {
    const start = performance.now();
    const picture = rgbPicture(image);
    const faces = await this.find(picture, near, isSearch);
    const found = performance.now();
    const crops = faces.map((face) => this.crop(picture, face));
    const cut = performance.now();
    const analyzed = await this.analyze(faces, crops);
    return { faces: analyzed, ms: { find: found - start, crop: cut - found, network: performance.now() - cut } };
  }

  /** As `detect`, without action units. @param {Picture} picture @param {Face[]} [near] @returns {Promise<Face[]>} */
  async find(picture, near = [], isSearch = !near.length) {
    const known = await this.#faces(picture, near.map(rowOf), true);
    if (!isSearch && known.length === near.length) return known;
    const rows = await this.#candidates(picture), limit = this.facts.yunet.NMS_OVERLAP;
    const others = rows.filter((row) => !known.some((face) => overlap(rowOf(face).box, row.box) > limit));
    const faces = [...known, ...(await this.#faces(picture, others))];
    if (faces.length) return faces.sort((one, other) => area(other) - area(one));
    const sideways = await this.#candidates(turned(picture));
    return this.#faces(picture, sideways.map((row) => mapped(row, [[0, 1, 0], [-1, 0, picture.height - 1]])));
  }

  /** @param {Picture} picture @param {Face} face @returns {Picture} The aligned crop. */
  crop(picture, { points }) {
    const { size: [height, width], crop_template: template } = this.facts;
    const matrix = similarityTransform(points, template.map(([x, y]) => [x * width, y * height]));
    return cutCrop(picture, matrix, [height, width], this.facts.cropping._OVERSAMPLING);
  }

  /** Predict the action units of faces. @param {Face[]} faces @param {Picture[]} crops @returns {Promise<Face[]>} */
  async analyze(faces, crops) {
    if (!faces.length) return [];
    const pixels = planes(crops, [0, 1, 2]);
    const outputs = await this.network.run({ [this.network.inputNames[0]]: new this.ort.Tensor("float32", pixels, [crops.length, 3, ...this.facts.size]) }, ["probabilities", "intensities"]);
    const count = this.facts.action_units.length;
    const values = (name, index) => Array.from(outputs[name].data.subarray(index * count, (index + 1) * count));
    return faces.map((face, index) => ({ ...face, probabilities: values("probabilities", index), intensities: values("intensities", index) }));
  }

  /** Turn candidates upright, drop weak ones and duplicates, and sort by size. */
  async #faces(picture, candidates, isTracked = false) {
    const { detector, min_score } = this.facts, size = [picture.width, picture.height];
    let rows = [];
    for (const row of candidates) {
      const [patch, toPhoto] = this.#patch(picture, row, isTracked);
      const upright = await this.#upright(patch, mapped(row, inverted(toPhoto)), isTracked);
      if (upright) rows.push(mapped(upright, toPhoto));
    }
    rows = suppressOverlaps(rows, this.facts.yunet.NMS_OVERLAP).filter(({ score, points }) => score >= min_score && canBeAligned(points, size));
    const faces = rows.map(({ box: [x, y, width, height], points, score }) => {
      const box = [x, y, x + width, y + height].map((value, index) => clamp(value, 0, size[index % 2]));
      return { box, points, score, quality: this.#quality(box, points, size), pose: this.#pose(points) };
    });
    return faces.sort((one, other) => area(other) - area(one));
  }

  /** Look for faces in the shrunk picture and in a small copy with a margin; rows in its pixels. */
  async #candidates(picture) {
    const { SMALL_SIDE, SMALL_MARGIN } = this.facts.detector;
    const [shrunk, toPhoto] = scaled(picture, Math.min(1, this.facts.max_side / Math.max(picture.width, picture.height)));
    const longest = Math.max(shrunk.width, shrunk.height);
    const [small, toShrunk] = scaled(shrunk, SMALL_SIDE / longest, SMALL_MARGIN);
    const rows = (await this.#yunet(small)).map((row) => mapped(row, toShrunk));
    if (longest > SMALL_SIDE) rows.push(...(await this.#yunet(shrunk)));
    return suppressOverlaps(rows.map((row) => mapped(row, toPhoto)), this.facts.yunet.NMS_OVERLAP);
  }

  /** Cut out a candidate with its surroundings, shrunk if it is large, and return the matrix patch -> picture. */
  #patch(picture, row, isTracked) {
    const { EYES_PER_BOX, PATCH_REACH, PATCH_EYES } = this.facts.detector;
    const eyes = EYES_PER_BOX * Math.sqrt(row.box[2] * row.box[3]), [x, y] = middle(row);
    const reach = (isTracked ? TRACKED.reach : PATCH_REACH) * eyes;
    const left = clamp(Math.floor(x - reach), 0, picture.width - 1), top = clamp(Math.floor(y - reach), 0, picture.height - 1);
    const right = clamp(Math.ceil(x + reach), left + 1, picture.width), bottom = clamp(Math.ceil(y + reach), top + 1, picture.height);
    const scale = Math.min(1, (isTracked ? TRACKED.eyes : PATCH_EYES) / eyes);
    const [patch, toPhoto] = scaled(cutOut(picture, left, top, right, bottom), scale);
    toPhoto[0][2] += left;
    toPhoto[1][2] += top;
    return [patch, toPhoto];
  }

  /** Detect again on the upright crop until the points converge, then average all estimators. */
  async #upright(patch, row, isTracked) {
    const { UPRIGHT_SCORE, MAX_TURNS, SCORE_LOSS, CONVERGED_SHIFT, MAX_CASCADE_SHIFT } = this.facts.detector;
    const isSure = isTracked || row.score >= UPRIGHT_SCORE;
    const start = (row = isSure ? row : await this.#scan(patch, row));
    for (let turn = 0; turn < MAX_TURNS; turn++) {
      const found = await this.#onCrop(patch, row);
      if (!found) return isTracked ? null : start;
      if (!isTracked && found.score < start.score - SCORE_LOSS) return isSure ? start : found;
      const shift = distance(found.points, row.points);
      row = found;
      if (shift < CONVERGED_SHIFT) break;
    }
    const average = (points, others) => points.map(([x, y], index) => [(x + others[index][0]) / 2, (y + others[index][1]) / 2]);
    const mirrored = await this.#onCrop(patch, row, true);
    if (mirrored) row.points = average(row.points, mirrored.points);
    const ours = this.#fivePoints(grayPicture(patch), row.points);
    if (distance(ours, row.points) < MAX_CASCADE_SHIFT) row.points = average(row.points, ours);
    return row;
  }

  /** Find a face again on the crop turned upright by its points, or on the crop's mirror image. */
  async #onCrop(patch, row, isMirrored = false) {
    const { CROP_SIDE, CROP_EYES, MAX_DISAGREEMENT } = this.facts.detector;
    const template = this.#uprightPoints(CROP_SIDE, CROP_EYES);
    const toCrop = similarityTransform(row.points, template), crop = warped(patch, toCrop, CROP_SIDE);
    let rows = await this.#yunet(isMirrored ? flipped(crop) : crop);
    if (isMirrored) {
      rows = rows.map((found) => mapped(found, [[-1, 0, CROP_SIDE - 1], [0, 1, 0]]));
      for (const found of rows) found.points = [1, 0, 2, 4, 3].map((index) => found.points[index]);
    }
    const distances = rows.map((found) => distance(found.points, template)), nearest = Math.min(...distances);
    return nearest <= MAX_DISAGREEMENT ? mapped(rows[distances.indexOf(nearest)], inverted(toCrop)) : null;
  }

  /** Look at a candidate in eight directions and take the best. */
  async #scan(patch, row) {
    const { EYES_PER_BOX, PLAUSIBLE_SCORE, SCAN_ANGLES, SCAN_EYES, SCAN_SIDE } = this.facts.detector;
    const [x, y] = middle(row), scale = SCAN_EYES / (EYES_PER_BOX * Math.sqrt(row.box[2] * row.box[3])), center = SCAN_SIDE / 2;
    let best = { ...row, score: row.score < PLAUSIBLE_SCORE ? 0 : row.score };
    for (const angle of SCAN_ANGLES) {
      const cos = scale * Math.cos((angle * Math.PI) / 180), sin = scale * Math.sin((angle * Math.PI) / 180);
      /** @type {Matrix} */
      const toCrop = [[cos, -sin, center - cos * x + sin * y], [sin, cos, center - sin * x - cos * y]];
      const rows = await this.#yunet(warped(patch, toCrop, SCAN_SIDE));
      for (const found of rows) {
        if (span(middle(found), [center, center]) < SCAN_EYES && found.score > best.score) best = mapped(found, inverted(toCrop));
      }
    }
    return best;
  }

  /** Run YuNet over a picture at its own size. @param {Picture} picture @returns {Promise<Row[]>} */
  async #yunet(picture) {
    const { STRIDES, NMS_OVERLAP } = this.facts.yunet, { CANDIDATE_SCORE: limit, PLACE } = this.facts.detector, last = STRIDES.at(-1);
    const width = Math.ceil(picture.width / last) * last, height = Math.ceil(picture.height / last) * last;
    const padded = width === picture.width && height === picture.height ? picture : cutOut(picture, 0, 0, width, height);
    const input = new this.ort.Tensor("float32", planes([padded], [2, 1, 0]), [1, 3, height, width]);
    const outputs = await this.yunet.run({ [this.yunet.inputNames[0]]: input });
    const rows = [];
    for (const stride of STRIDES) {
      const [classes, objects, boxes, points] = ["cls", "obj", "bbox", "kps"].map((kind) => outputs[`${kind}_${stride}`].data);
      for (let anchor = 0; anchor < classes.length; anchor++) {
        const score = Math.sqrt(clamp(classes[anchor], 0, 1) * clamp(objects[anchor], 0, 1));
        if (score < limit) continue;
        const x = anchor % (width / stride), y = Math.floor(anchor / (width / stride));
        const [across, down] = [2, 3].map((index) => stride * Math.exp(boxes[4 * anchor + index]));
        const [left, top] = [stride * (x + boxes[4 * anchor]) - across / 2, stride * (y + boxes[4 * anchor + 1]) - down / 2];
        const found = [0, 1, 2, 3, 4].map((index) => [stride * (x + points[10 * anchor + 2 * index]), stride * (y + points[10 * anchor + 2 * index + 1])]);
        rows.push({ box: [left, top, across, down], points: found, score });
      }
    }
    const placed = (value) => round(value / PLACE) * PLACE;
    return suppressOverlaps(rows, NMS_OVERLAP, (box) => box.map(Math.trunc)).map(({ box, points, score }) => (
      { box: box.map(placed), points: points.map((point) => point.map(placed)), score }
    ));
  }

  /** The five points of an average frontal face in the middle of a square crop. @returns {Point[]} */
  #uprightPoints(side, eyes) {
    const template = this.facts.cropping.CROP_TEMPLATE, [x, y] = mean(template), scale = eyes / (template[1][0] - template[0][0]);
    return template.map(([u, v]) => [side / 2 + (u - x) * scale, side / 2 + (v - y) * scale]);
  }

  /** Find the five points of one face by the cascade, from points that are roughly right. @param {Picture} gray */
  #fivePoints(gray, points) {
    const { CROP_SIDE, CROP_EYES, SHARPEST } = this.facts.five_points;
    const scale = Math.min(1, (SHARPEST * CROP_EYES) / Math.max(1e-6, span(points[0], points[1])));
    const small = resized(gray, Math.max(1, round(gray.width * scale)), Math.max(1, round(gray.height * scale)));
    const factors = [small.width / gray.width, small.height / gray.height];
    const template = this.#uprightPoints(CROP_SIDE, CROP_EYES);
    points = points.map((point) => point.map((value, axis) => (value + 0.5) * factors[axis] - 0.5));
    for (const weights of this.cascade) {
      const toCrop = similarityTransform(points, template), toPhoto = inverted(toCrop);
      const offsets = new Float64Array(10);
      [...histograms(warped(small, toCrop, CROP_SIDE)), 1].forEach((feature, row) => {
        for (let column = 0; column < 10; column++) offsets[column] += feature * weights[10 * row + column];
      });
      points = template.map(([x, y], index) => moved(toPhoto, [x + CROP_EYES * offsets[2 * index], y + CROP_EYES * offsets[2 * index + 1]]));
    }
    return points.map((point) => point.map((value, axis) => (value + 0.5) / factors[axis] - 0.5));
  }

  /** What makes a face's scores unreliable. @returns {string[]} */
  #quality(box, points, [width, height]) {
    const { SMALLEST_FACE, MAX_OUTSIDE, SQUEEZED, _SHOWS } = this.facts.quality, template = this.facts.cropping.CROP_TEMPLATE;
    const toPhoto = similarityTransform(template, points), notes = [];
    if (box[2] - box[0] < SMALLEST_FACE) notes.push("small");
    const outside = _SHOWS.filter((place) => {
      const [x, y] = moved(toPhoto, place);
      return x < 0 || y < 0 || x >= width || y >= height;
    });
    if (outside.length > MAX_OUTSIDE * _SHOWS.length) notes.push("cut");
    const widthToHeight = (each) => span(each[0], each[1]) / Math.max(span(mean(each.slice(0, 2)), mean(each.slice(3))), 1e-9);
    const ratio = ((box[2] - box[0]) / Math.max(box[3] - box[1], 1e-9)) * (widthToHeight(points) / widthToHeight(template));
    if (!notes.includes("cut") && (ratio < SQUEEZED[0] || ratio > SQUEEZED[1])) notes.push("squeezed");
    return notes;
  }

  /** Roll and yaw in degrees, as `head_pose` of hf_geaau/video/tracking.py. @returns {[number, number]} */
  #pose(points) {
    const center = mean(points);
    const [across, down] = [0, 1].map((axis) => this.facts.head_inverse.map((row) => row.reduce((sum, value, index) => sum + value * (points[index][axis] - center[axis]), 0)));
    const roll = Math.atan2(down[0], across[0]), cos = Math.cos(roll), sin = Math.sin(roll);
    const right = across.map((value, index) => value * cos + down[index] * sin), below = down.map((value, index) => value * cos - across[index] * sin);
    const scale = Math.max(Math.hypot(...below), Math.hypot(...right), 1e-9);
    return [roll, Math.asin(clamp(right[2] / scale, -1, 1))].map((angle) => (angle * 180) / Math.PI);
  }
}

/** The planes of pictures of one size, float32, channels in the given order: an input of a network. */
function planes(pictures, order) {
  const area = pictures[0].width * pictures[0].height, values = new Float32Array(pictures.length * 3 * area);
  pictures.forEach(({ data }, number) => {
    order.forEach((channel, plane) => {
      const start = (3 * number + plane) * area;
      for (let index = 0, from = channel; index < area; index++, from += 3) values[start + index] = data[from];
    });
  });
  return values;
}

/** Rotate by 90° clockwise. @param {Picture} picture @returns {Picture} */
function turned({ width, height, channels, data }) {
  const result = blank(height, width, channels);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const from = (y * width + x) * channels, to = (x * height + height - 1 - y) * channels;
      for (let channel = 0; channel < channels; channel++) result.data[to + channel] = data[from + channel];
    }
  }
  return result;
}

/** Whether a crop can be aligned to points: their mean lies in the picture, and they span a face the right way round. */
function canBeAligned(points, size) {
  const center = mean(points), eyes = mean(points.slice(0, 2)), mouth = mean(points.slice(3));
  const isInside = center.every((value, axis) => value >= 0 && value < size[axis]);
  return isInside && (points[1][0] - points[0][0]) * (mouth[1] - eyes[1]) - (points[1][1] - points[0][1]) * (mouth[0] - eyes[0]) >= 1;
}
