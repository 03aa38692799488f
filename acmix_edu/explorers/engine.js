// The whole of ACmix in plain JavaScript: one small function for each stage, no library.
//
// A map is { data, channels, height, width }: the value of channel c at row i, column j is
// data[(c * height + i) * width + j]. Sums are taken in double precision, results are kept as
// 32-bit floats. N is the number of heads, d = channels / N the dimensions of a head.

export function newMap(channels, height, width) {
  return { data: new Float32Array(channels * height * width), channels, height, width };
}

// Some channels of a map, without a copy.
export function channelsOf(map, first, count) {
  const size = map.height * map.width;
  return { ...map, channels: count, data: map.data.subarray(first * size, (first + count) * size) };
}

// ---- Stage I: project once ------------------------------------------------------------------

// y_c(i,j) = b_c + Σ_a W_ca x_a(i,j): a 1×1 convolution.
export function project(x, weight, bias) {
  const size = x.height * x.width;
  const y = newMap(bias.length, x.height, x.width);
  const sum = new Float64Array(size);
  for (let c = 0; c < bias.length; c++) {
    sum.fill(bias[c]);
    for (let a = 0; a < x.channels; a++) {
      const w = weight[c * x.channels + a];
      for (let n = 0; n < size; n++) sum[n] += w * x.data[a * size + n];
    }
    y.data.set(sum, c * size);
  }
  return y;
}

// pe = W·loc + b, loc(i,j) = (linspace(-1, 1, width)_j, linspace(-1, 1, height)_i).
export function positionMap(height, width, weight, bias) {
  const along = (i, size) => (size > 1 ? -1 + (2 * i) / (size - 1) : -1);
  const loc = newMap(2, height, width);
  for (let i = 0; i < height; i++) {
    for (let j = 0; j < width; j++) {
      loc.data[i * width + j] = along(j, width);
      loc.data[(height + i) * width + j] = along(i, height);
    }
  }
  return project(loc, weight, bias);
}

// ---- Stage II, attention path ---------------------------------------------------------------

// Where an index outside 0 … size-1 lands when the map is mirrored at its borders, without
// repeating the border and any number of times (numpy's "reflect").
export function reflect(index, size) {
  if (size === 1) return 0;
  const period = 2 * (size - 1);
  const folded = ((index % period) + period) % period;
  return folded < size ? folded : period - folded;
}

// The indices that the window of each output place reads along one axis, [outputs · kernel].
function windowIndices(size, kernel, dilation, stride) {
  const outputs = Math.ceil(size / stride);
  const indices = new Int32Array(outputs * kernel);
  for (let i = 0; i < outputs; i++) {
    for (let p = 0; p < kernel; p++) {
      const offset = (p - (kernel - 1) / 2) * dilation;
      indices[i * kernel + p] = reflect(i * stride + offset, size);
    }
  }
  return indices;
}

// For each output pixel, the k² positions that its window reads, [pixels · k²]. The last answer is
// kept: weights and values ask the same question one after the other.
let lastWindows = {};
export function windowPixels(height, width, { kernel, dilation, stride }) {
  const key = [height, width, kernel, dilation, stride].join();
  if (lastWindows.key === key) return lastWindows.pixels;
  const rows = windowIndices(height, kernel, dilation, stride);
  const columns = windowIndices(width, kernel, dilation, stride);
  const pixels = new Int32Array((rows.length / kernel) * columns.length * kernel);
  let n = 0;
  for (let i = 0; i < rows.length; i += kernel) {
    for (let j = 0; j < columns.length; j += kernel) {
      for (let p = 0; p < kernel; p++) {
        for (let r = 0; r < kernel; r++) pixels[n++] = rows[i + p] * width + columns[j + r];
      }
    }
  }
  lastWindows = { key, pixels };
  return pixels;
}

// a_o(i,j) = softmax over the window of q_ij·(k_o - pe_o)/√d, [N, pixels, k²]. The module's other
// position term, q_ij·pe_ij, is the same for all offsets o: it cancels in the softmax.
export function attentionWeights(q, k, pe, { heads, kernel, dilation, stride }) {
  const { height, width, channels } = q;
  const size = height * width, d = channels / heads, taps = kernel * kernel;
  const keys = byPixel(k, (value, n) => value - pe.data[n % (d * size)]);
  const queries = byPixel(q, (value) => value / Math.sqrt(d));
  const read = windowPixels(height, width, { kernel, dilation, stride });
  const outWidth = Math.ceil(width / stride), pixels = read.length / taps;
  const weights = new Float32Array(heads * read.length);
  const logits = new Float64Array(taps);
  for (let head = 0; head < heads; head++) {
    for (let pixel = 0; pixel < pixels; pixel++) {
      const row = Math.floor(pixel / outWidth) * stride;
      const query = (row * width + (pixel % outWidth) * stride) * channels + head * d;
      for (let o = 0, window = pixel * taps; o < taps; o++) {
        const key = read[window + o] * channels + head * d;
        let sum = 0;
        for (let e = 0; e < d; e++) sum += queries[query + e] * keys[key + e];
        logits[o] = sum;
      }
      softmaxInto(weights, head * read.length + pixel * taps, logits);
    }
  }
  return weights;
}

// The scores of which the softmax is taken, at one query [row, column] and for any list of key
// pixels: an array for each head.
export function scoresAt({ q, k, pe }, heads, query, pixels) {
  const size = q.height * q.width, d = q.channels / heads;
  const own = query[0] * q.width + query[1];
  return Array.from({ length: heads }, (_, head) => {
    const scores = new Float64Array(pixels.length);
    for (let e = 0; e < d; e++) {
      const c = (head * d + e) * size, asks = q.data[c + own] / Math.sqrt(d);
      for (let o = 0; o < pixels.length; o++) {
        scores[o] += asks * (k.data[c + pixels[o]] - pe.data[e * size + pixels[o]]);
      }
    }
    return scores;
  });
}

export function softmax(scores) {
  const weights = new Float64Array(scores.length);
  softmaxInto(weights, 0, scores.slice());
  return weights;
}

// The values of a map pixel by pixel, [H·W, C], each changed by `change(value, n)`.
function byPixel({ data, channels, height, width }, change) {
  const size = height * width, values = new Float64Array(data.length);
  for (let c = 0, n = 0; c < channels; c++) {
    for (let at = c; n < (c + 1) * size; at += channels, n++) values[at] = change(data[n], n);
  }
  return values;
}

function softmaxInto(target, start, logits) {
  let largest = -Infinity, total = 0;
  for (let o = 0; o < logits.length; o++) if (logits[o] > largest) largest = logits[o];
  for (let o = 0; o < logits.length; o++) total += logits[o] = exp(logits[o] - largest);
  const scale = 1 / total;
  for (let o = 0; o < logits.length; o++) target[start + o] = logits[o] * scale;
}

// eˣ for x ≤ 0, to nine digits: from a table in steps of 1/32, and four terms of the series.
const STEPS = 32;
const POWERS = Float64Array.from({ length: 88 * STEPS }, (_, n) => Math.exp(-n / STEPS));
function exp(x) {
  if (!(x > -87)) return Math.exp(x);
  const n = Math.floor(-x * STEPS), f = x + n / STEPS;
  return POWERS[n] * (1 + f * (1 + f * (0.5 + f * (1 / 6 + f / 24))));
}

// F_att(n·d + e) = Σ_o a_o v_{n·d + e, o}: the heads lie one after the other (head-major).
export function aggregate(weights, v, { heads, kernel, dilation, stride }) {
  const { height, width, channels } = v;
  const size = height * width, d = channels / heads, taps = kernel * kernel;
  const read = windowPixels(height, width, { kernel, dilation, stride });
  const y = newMap(channels, Math.ceil(height / stride), Math.ceil(width / stride));
  const pixels = y.height * y.width;
  for (let c = 0; c < channels; c++) {
    const values = v.data.subarray(c * size, (c + 1) * size);
    const start = Math.floor(c / d) * read.length;
    for (let pixel = 0; pixel < pixels; pixel++) {
      const end = (pixel + 1) * taps;
      let sum = 0;
      for (let n = pixel * taps; n < end; n++) sum += weights[start + n] * values[read[n]];
      y.data[c * pixels + pixel] = sum;
    }
  }
  return y;
}

// The entropy of one window's weights as a fraction of its maximum, log k² (for k = 1: 0).
export function entropyFraction(weights) {
  let entropy = 0;
  for (const a of weights) if (a > 0) entropy -= a * Math.log(a);
  return weights.length > 1 ? entropy / Math.log(weights.length) : 0;
}

// ---- Stage II, convolution path -------------------------------------------------------------

// The kernels that ACmix starts with: kernel t is 1 at (t div k, t mod k), for every channel.
export function shiftKernels(channels, kernel) {
  const taps = kernel * kernel;
  return new Float32Array(channels * taps * taps).map((_, n) =>
    n % taps === Math.floor(n / taps) % taps ? 1 : 0);
}

// W[o, m] = Σ_t dep[o, t]·fc[t, m]: the fully connected layer and the grouped convolution are
// together one grouped convolution with 3N inputs a group. The result is [C_out, 3N, k, k].
export function fuseConvPath(dep, fc, { channels, heads, kernel }) {
  const taps = kernel * kernel, inputs = 3 * heads;
  const fused = new Float32Array(channels * inputs * taps);
  for (let n = 0; n < fused.length; n++) {
    const tap = n % taps, m = Math.floor(n / taps) % inputs, o = Math.floor(n / taps / inputs);
    let sum = 0;
    for (let t = 0; t < taps; t++) sum += dep[(o * taps + t) * taps + tap] * fc[t * inputs + m];
    fused[n] = sum;
  }
  return fused;
}

// Put the maps of dimension e side by side: channel e·3N + m is dimension e of map m, where the
// 3N maps are the N heads of q, then those of k, then those of v.
export function regroup(q, k, v, heads) {
  const size = q.height * q.width, d = q.channels / heads;
  const stacked = newMap(3 * q.channels, q.height, q.width);
  for (let e = 0; e < d; e++) {
    for (let m = 0; m < 3 * heads; m++) {
      const source = [q, k, v][Math.floor(m / heads)].data;
      const start = ((m % heads) * d + e) * size;
      stacked.data.set(source.subarray(start, start + size), (e * 3 * heads + m) * size);
    }
  }
  return stacked;
}

// y_c(i,j) = Σ_{m,p,r} W[c,m,p,r] x_{g·M+m}(i·s+p-⌊k/2⌋, j·s+r-⌊k/2⌋), zero outside the map;
// channel c belongs to group g, which has M inputs: the outputs are dimension-major.
export function groupedConv(x, weight, { channels, groups, kernel, stride }) {
  const inputs = x.channels / groups, half = (kernel - 1) / 2;
  const y = newMap(channels, Math.ceil(x.height / stride), Math.ceil(x.width / stride));
  const sum = new Float64Array(y.height * y.width);
  for (let c = 0, n = 0; c < channels; c++) {
    const group = Math.floor((c * groups) / channels);
    sum.fill(0);
    for (let m = 0; m < inputs; m++) {
      for (let p = 0; p < kernel; p++) {
        for (let r = 0; r < kernel; r++) {
          addShifted(sum, y, x, group * inputs + m, weight[n++], p - half, r - half, stride);
        }
      }
    }
    y.data.set(sum, c * sum.length);
  }
  return y;
}

function addShifted(sum, y, x, channel, weight, di, dj, stride) {
  if (weight === 0) return;
  const { data } = x;
  const first = Math.max(0, Math.ceil(-dj / stride));
  const end = Math.min(y.width, Math.floor((x.width - 1 - dj) / stride) + 1);
  for (let i = 0; i < y.height; i++) {
    const row = i * stride + di;
    if (row < 0 || row >= x.height) continue;
    const start = (channel * x.height + row) * x.width + dj;
    const target = i * y.width;
    for (let j = first; j < end; j++) sum[target + j] += weight * data[start + j * stride];
  }
}

// ---- The mix --------------------------------------------------------------------------------

// F_out = α·F_att + β·F_conv.
export function mix(attention, convolution, alpha, beta) {
  return attention.map((value, n) => alpha * value + beta * convolution[n]);
}

// ‖f‖₂.
export function norm(values) {
  let sum = 0;
  for (let n = 0; n < values.length; n++) sum += values[n] * values[n];
  return Math.sqrt(sum);
}

// ‖αF_att‖ / (‖αF_att‖ + ‖βF_conv‖) from the two norms; not a number where both are 0.
export function normShare(attentionNorm, convolutionNorm, alpha, beta) {
  const attention = Math.abs(alpha) * attentionNorm;
  return attention / (attention + Math.abs(beta) * convolutionNorm);
}

// ---- Effective kernels: out_ij = Σ_o W_o(i,j) x_{ij+o} + constant ---------------------------

// Attention path at one pixel: a_o(i,j)·W_v[c, a], [C_in, k²]; `weights` is that pixel's window.
export function attentionKernel(weights, valueWeight, channel, inPlanes) {
  const taps = weights.length;
  return new Float32Array(inPlanes * taps).map((_, n) =>
    weights[n % taps] * valueWeight[channel * inPlanes + Math.floor(n / taps)]);
}

// Convolution path, the same at every pixel: Σ_m fused[c, m]·W_m[·, a], [C_in, k²].
export function convolutionKernel(fused, projections, channel, { heads, channels, inPlanes }) {
  const d = channels / heads, taps = fused.length / channels / (3 * heads);
  const e = Math.floor(channel / heads);
  const kernel = new Float64Array(inPlanes * taps);
  for (let m = 0; m < 3 * heads; m++) {
    const row = ((m % heads) * d + e) * inPlanes;
    const weight = projections[Math.floor(m / heads)];
    for (let n = 0; n < kernel.length; n++) {
      const tap = fused[(channel * 3 * heads + m) * taps + (n % taps)];
      kernel[n] += tap * weight[row + Math.floor(n / taps)];
    }
  }
  return Float32Array.from(kernel);
}

// The response to grey: the sum over the input channels, [C_in, k²] → [k²].
export function sumInputs(kernel, inPlanes) {
  const taps = kernel.length / inPlanes;
  return new Float32Array(taps).map((_, tap) => {
    let sum = 0;
    for (let n = tap; n < kernel.length; n += taps) sum += kernel[n];
    return sum;
  });
}

// A k×k kernel with its dilation, centred on a side×side grid; not a number where it has no tap.
export function onGrid(kernel, dilation, side) {
  const k = Math.sqrt(kernel.length), first = (side - 1 - (k - 1) * dilation) / 2;
  const grid = new Float32Array(side * side).fill(NaN);
  kernel.forEach((value, n) => {
    const row = first + Math.floor(n / k) * dilation, column = first + (n % k) * dilation;
    grid[row * side + column] = value;
  });
  return grid;
}

// α·attention + β·convolution on a common grid; a path without a tap there adds nothing.
export function mixGrids(attention, convolution, alpha, beta) {
  return attention.map((a, n) => {
    const c = convolution[n];
    if (Number.isNaN(a) && Number.isNaN(c)) return NaN;
    return (Number.isNaN(a) ? 0 : alpha * a) + (Number.isNaN(c) ? 0 : beta * c);
  });
}

// ---- All of it ------------------------------------------------------------------------------

// Every stage by name, for one image x. `weights` holds q, k, v, position (each { weight, bias }),
// fc, dep, alpha and beta; `sizes` holds heads, kernelAtt, kernelConv, dilation and stride.
export function acmix(x, weights, { heads, kernelAtt, kernelConv, dilation, stride }) {
  const [q, k, v] = ["q", "k", "v"].map((name) =>
    project(x, weights[name].weight, weights[name].bias));
  const pe = positionMap(x.height, x.width, weights.position.weight, weights.position.bias);
  const window = { heads, kernel: kernelAtt, dilation, stride };
  const attention = attentionWeights(q, k, pe, window);
  const outAtt = aggregate(attention, v, window);
  const channels = q.channels;
  const path = { channels, heads, groups: channels / heads, kernel: kernelConv, stride };
  const fused = fuseConvPath(weights.dep, weights.fc, path);
  const outConv = groupedConv(regroup(q, k, v, heads), fused, path);
  const out = mix(outAtt.data, outConv.data, weights.alpha, weights.beta);
  return { q, k, v, pe, attention, outAtt, fused, outConv, out: { ...outAtt, data: out } };
}

// ---- Colours as features --------------------------------------------------------------------

// colour_features of colours 0 … 1, [3·size] → [4·size]: the colour minus ½, and what lifts it onto
// a sphere.
export function colourFeatures(colours) {
  const size = colours.length / 3, data = new Float32Array(4 * size);
  for (let n = 0; n < 3 * size; n++) data[n] = colours[n] - 0.5;
  for (let n = 0; n < size; n++) {
    const [r, g, b] = [data[n], data[size + n], data[2 * size + n]];
    data[3 * size + n] = Math.sqrt(3 - r * r - g * g - b * b);
  }
  return data;
}
