// The functions that macros may call, in JavaScript; macros.py (with curves.py) and macros.R are its twins,
// docs/guides/macros.md the rules. The three do the same operations in the same order, so their results differ at most
// where a language's own logarithm, sine or reading of decimals does. Nothing but the language itself is used.
'use strict';

(() => {
  const RANGE_MAX = 1000000;
  const DIGITS_MAX = 15;
  const DEGREE_MAX = 10;
  const ITERATIONS = 200;
  const ITERATIONS_MAX = 2000;
  const POLISHING_MAX = 50;
  const SINGULAR = 1e-12;
  const LN2_HIGH = 0.6931471803691238;
  const LN2_LOW = 1.9082149292705877e-10;
  const LIFETIMES = 41;
  const LIFETIME_RATIO = 1.2589254117941673;
  const TRANSFORMS = ['none', 'log', 'ln', 'x2'];
  const { abs, floor, sqrt } = Math;

  // What was handed in --------------------------------------------------------------------------

  function fail(name, problem) {
    throw new Error(`${name}: ${problem}`);
  }

  // Typed arrays as those of the language.
  const plain = (value) => (ArrayBuffer.isView(value) && !(value instanceof DataView) ? Array.from(value) : value);

  function kind(value) {
    if (value === null || value === undefined) return 'null';
    if (Array.isArray(value)) return 'an array';
    const kinds = { boolean: 'a boolean', number: 'a number', string: 'text', object: 'an object' };
    return kinds[typeof value] ?? 'something else';
  }

  function wants(name, what, value, wanted) {
    const given = plain(value);
    if (kind(given) !== wanted) fail(name, `${what} is ${kind(given)}, not ${wanted}`);
    return given;
  }

  // Null, and a number that is not finite, are missing: NaN.
  function number(name, what, value) {
    if (value === null || value === undefined) return NaN;
    return Number.isFinite(wants(name, what, value, 'a number')) ? value : NaN;
  }

  function numbers(name, what, value) {
    return Array.from(wants(name, what, value, 'an array'), (each, at) => number(name, `${what}[${at}]`, each));
  }

  function whole(name, what, value, low, high) {
    wants(name, what, value, 'a number');
    if (!Number.isInteger(value) || value < low || (high !== null && value > high)) {
      fail(name, `${what} is not a whole number from ${low} ${high === null ? 'up' : `to ${high}`}`);
    }
    return value;
  }

  function sameLength(name, first, a, second, b) {
    if (a.length !== b.length) fail(name, `${first} has ${a.length} values and ${second} has ${b.length}`);
  }

  // Arrays of numbers of one length, which is at least 2.
  function rowsOf(name, value, width) {
    const rows = Array.from(wants(name, 'input', value, 'an array'), (row, at) => numbers(name, `input[${at}]`, row));
    rows.forEach((row, at) => {
      const wanted = width ?? Math.max(2, rows[0].length);
      if (row.length !== wanted) fail(name, `input[${at}] has ${row.length} values, not ${wanted}`);
    });
    return rows;
  }

  const has = (object, key) => object !== null && typeof object === 'object' && Object.hasOwn(object, key);

  // Numbers -------------------------------------------------------------------------------------

  const known = (value) => (Number.isFinite(value) ? value : null);
  const missing = (values) => values.some((each) => each !== each);
  const quotient = (a, b) => (b !== 0 ? a / b : NaN);
  const largest = (values) => values.reduce((one, other) => (other > one ? other : one));
  const smallest = (values) => values.reduce((one, other) => (other < one ? other : one));

  // The sum, with what rounding lost added at the end (Neumaier).
  function totalOf(values) {
    let total = 0;
    let lost = 0;
    for (const each of values) {
      const more = total + each;
      lost += abs(total) >= abs(each) ? total - more + each : each - more + total;
      total = more;
    }
    return total + lost;
  }

  function dot(a, b) {
    let total = 0;
    for (let at = 0; at < a.length; at += 1) total += a[at] * b[at];
    return total;
  }

  const mean = (values) => totalOf(values) / values.length;

  // The sum of the squared deviations from the mean, in two passes, corrected for the mean's rounding.
  function squares(values) {
    if (largest(values) === smallest(values)) return 0;
    const middle = mean(values);
    const off = values.map((each) => each - middle);
    const rest = totalOf(off);
    return totalOf(off.map((each) => each * each)) - (rest * rest) / values.length;
  }

  // The exponential by basic arithmetic alone, so that iterations are the same in every language.
  function exp(x) {
    if (!(x < 709.78)) return x >= 709.78 ? Infinity : NaN;
    if (x < -745) return 0;
    const power = floor(x / 0.6931471805599453 + 0.5);
    const rest = x - power * LN2_HIGH - power * LN2_LOW;
    let series = 1;
    for (let term = 14; term > 0; term -= 1) series = 1 + (rest / term) * series;
    const half = floor(power / 2);
    return series * 2 ** half * 2 ** (power - half);
  }

  // Householder's way; null if a column is one of the others put together.
  function leastSquares(given, response) {
    const columns = given.map((column) => column.slice());
    const y = response.slice();
    const diagonal = [];
    const norms = columns.map((column) => sqrt(dot(column, column)));
    for (let at = 0; at < columns.length; at += 1) {
      const tail = columns[at].slice(at);
      let alpha = sqrt(dot(tail, tail));
      if (!(alpha > SINGULAR * norms[at])) return null;
      if (tail[0] > 0) alpha = -alpha;
      const scale = alpha * (alpha - tail[0]);
      tail[0] -= alpha;
      for (const other of [...columns.slice(at + 1), y]) {
        const share = dot(tail, other.slice(at)) / scale;
        for (let i = 0; i < tail.length; i += 1) other[at + i] -= share * tail[i];
      }
      diagonal.push(alpha);
    }
    const found = columns.map(() => 0);
    for (let at = columns.length - 1; at >= 0; at -= 1) {
      let rest = y[at];
      for (let after = at + 1; after < columns.length; after += 1) rest -= columns[after][at] * found[after];
      found[at] = rest / diagonal[at];
    }
    return found.every(Number.isFinite) ? found : null;
  }

  const restOf = (y, fitted) => totalOf(y.map((each, at) => (each - fitted[at]) * (each - fitted[at])));

  function explainedBy(y, fitted) {
    const all = squares(y);
    return all === 0 ? null : known(1 - restOf(y, fitted) / all);
  }

  // Arrays --------------------------------------------------------------------------------------

  function ArrayNth(arr, size = 1, idx = 0) {
    const values = wants('ArrayNth', 'arr', arr, 'an array');
    const step = whole('ArrayNth', 'size', size, 1, null);
    const found = [];
    for (let at = whole('ArrayNth', 'idx', idx, 0, null); at < values.length; at += step) found.push(values[at]);
    return found;
  }

  function transformed(transform, value) {
    if (transform === 'x2') return value * value;
    if (transform === 'none') return value;
    return transform === 'ln' ? MathLN(value) : MathLOG(value);
  }

  function ArrayRange(start, stop, step = 1, transform = 'none') {
    let [from, to, by] = [['start', start], ['stop', stop], ['step', step]].map(
      ([what, value]) => known(number('ArrayRange', what, value)),
    );
    if (!TRANSFORMS.includes(transform)) fail('ArrayRange', `transform is none of: ${TRANSFORMS.join(', ')}`);
    if (from === null) return [];
    if (to === null) [from, to] = [0, from];
    if (by === null || by === 0) fail('ArrayRange', 'step is 0');
    const count = (to - from) / by;
    if (!(count <= RANGE_MAX)) fail('ArrayRange', `more than ${RANGE_MAX} values`);
    const found = [];
    for (let at = 0; at < Math.ceil(count); at += 1) found.push(transformed(transform, from + at * by));
    return found;
  }

  function ArrayUnZip(input) {
    const rows = Array.from(wants('ArrayUnZip', 'input', input, 'an array'), plain);
    rows.forEach((row, at) => {
      if (!Array.isArray(row) || row.length !== 2) fail('ArrayUnZip', `input[${at}] is not an array of two values`);
    });
    return { x: rows.map((row) => row[0]), y: rows.map((row) => row[1]) };
  }

  function ArrayZip(x, y) {
    const [first, second] = [wants('ArrayZip', 'x', x, 'an array'), wants('ArrayZip', 'y', y, 'an array')];
    sameLength('ArrayZip', 'x', first, 'y', second);
    return Array.from(first, (each, at) => [each, second[at]]);
  }

  // Protocols -----------------------------------------------------------------------------------

  // The set's protocols; null if there is no set.
  function protocolsOf(name, json) {
    if (json === null || json === undefined) return null;
    wants(name, 'json', json, 'an object');
    return has(json, 'set') && Array.isArray(json.set) ? json.set : null;
  }

  const labelOf = (protocol) => (!Array.isArray(protocol) && has(protocol, 'label') ? protocol.label : null);

  function labelled(name, label, json, array) {
    wants(name, 'array', array, 'a boolean');
    if (label !== null && label !== undefined) wants(name, 'label', label, 'text');
    const protocols = protocolsOf(name, json);
    if (protocols === null || label === null || label === undefined) return null;
    const found = [];
    protocols.forEach((protocol, at) => {
      if (labelOf(protocol) === label) found.push(at);
    });
    return found.length > 0 || array ? found : null;
  }

  function GetIndexByLabel(label, json, array = false) {
    const found = labelled('GetIndexByLabel', label, json, array);
    return found?.length === 1 && !array ? found[0] : found;
  }

  function GetProtocolByLabel(label, json, array = false) {
    const found = labelled('GetProtocolByLabel', label, json, array);
    if (found === null) return null;
    const protocols = found.map((at) => json.set[at]);
    return protocols.length === 1 && !array ? protocols[0] : protocols;
  }

  function GetLabelLookup(json) {
    const protocols = protocolsOf('GetLabelLookup', json);
    if (protocols === null) return null;
    const lookup = new Map();
    protocols.forEach((protocol, at) => {
      const label = labelOf(protocol);
      if (typeof label === 'string' && label !== '') lookup.set(label, [...(lookup.get(label) ?? []), at]);
    });
    return Object.fromEntries(lookup);
  }

  // Statistics ----------------------------------------------------------------------------------

  // What `use` makes of the values; null if there are too few, or one is missing.
  function ofValues(name, values, least, use) {
    const found = numbers(name, 'values', values);
    return found.length < least || missing(found) ? null : known(use(found));
  }

  const MathMAX = (values) => ofValues('MathMAX', values, 1, largest);
  const MathMIN = (values) => ofValues('MathMIN', values, 1, smallest);
  const MathSUM = (values) => ofValues('MathSUM', values, 1, totalOf);
  const MathMEAN = (values) => ofValues('MathMEAN', values, 1, mean);
  const MathMEDIAN = (values) => ofValues('MathMEDIAN', values, 1, (found) => {
    found.sort((a, b) => a - b);
    const middle = floor(found.length / 2);
    return found.length % 2 ? found[middle] : (found[middle - 1] + found[middle]) / 2;
  });
  const MathVARIANCE = (values) => ofValues('MathVARIANCE', values, 2, (found) => squares(found) / (found.length - 1));
  const MathSTDEVS = (values) => ofValues('MathSTDEVS', values, 2, (found) => sqrt(squares(found) / (found.length - 1)));
  const MathSTDEV = (values) => ofValues('MathSTDEV', values, 1, (found) => sqrt(squares(found) / found.length));
  const MathSTDERR = (values) =>
    ofValues('MathSTDERR', values, 1, (found) => sqrt(squares(found) / found.length) / sqrt(found.length));

  function MathLN(value) {
    const found = number('MathLN', 'value', value);
    return found > 0 ? Math.log(found) : null;
  }

  function MathLOG(value) {
    const found = number('MathLOG', 'value', value);
    return found > 0 ? Math.log10(found) : null;
  }

  function MathROUND(value, digits = 2) {
    const found = number('MathROUND', 'value', value);
    whole('MathROUND', 'digits', digits, -DIGITS_MAX, DIGITS_MAX);
    if (!Number.isFinite(found)) return null;
    const sign = found < 0 ? -1 : 1;
    const size = abs(found);
    if (digits >= 0) return size >= 1e21 ? found : sign * Number(size.toFixed(digits));
    const unit = Number(`1e${-digits}`);
    return sign * floor(size / unit + 0.5) * unit;
  }

  // Regressions ---------------------------------------------------------------------------------

  function MathLINREG(x, y) {
    const [one, other] = [numbers('MathLINREG', 'x', x), numbers('MathLINREG', 'y', y)];
    sameLength('MathLINREG', 'x', one, 'y', other);
    if (one.length < 2 || missing(one) || missing(other) || largest(one) === smallest(one)) return null;
    const [meanX, meanY] = [mean(one), mean(other)];
    const across = totalOf(one.map((each, at) => (each - meanX) * (other[at] - meanY)));
    const [wide, high] = [squares(one), squares(other)];
    const m = quotient(across, wide);
    let r = high > 0 ? quotient(across, sqrt(wide) * sqrt(high)) : NaN;
    if (Number.isFinite(r)) r = Math.max(-1, Math.min(1, r));
    return { m: known(m), b: known(meanY - m * meanX), r: known(r), r2: known(r * r) };
  }

  // Intercept and slopes, and what they say for each row.
  function regression(columns, y) {
    const predictors = [y.map(() => 1), ...columns];
    if (y.length < predictors.length || [...columns, y].some(missing)) return null;
    const found = leastSquares(predictors, y);
    if (found === null) return null;
    return [found, y.map((_, at) => dot(predictors.map((column) => column[at]), found))];
  }

  function MathMULTREG(input) {
    const rows = rowsOf('MathMULTREG', input, null);
    const columns = rows.length > 0 ? rows[0].map((_, at) => rows.map((row) => row[at])) : [[]];
    const y = columns.pop();
    const found = regression(columns, y);
    if (found === null) return null;
    const [slopes, fitted] = found;
    const explained = explainedBy(y, fitted);
    return {
      rsquared: explained, r_squared: explained, intercept: slopes[0], slopes, coefficients: slopes.slice(),
      points: [...columns, fitted],
    };
  }

  function MathPOLYREG(input, degree) {
    const rows = rowsOf('MathPOLYREG', input, 2);
    whole('MathPOLYREG', 'degree', degree, 1, DEGREE_MAX);
    const [x, y] = [rows.map((row) => row[0]), rows.map((row) => row[1])];
    const powers = [x];
    while (powers.length < degree) powers.push(powers.at(-1).map((each, at) => each * x[at]));
    const found = regression(powers, y);
    if (found === null) return null;
    const [slopes, fitted] = found;
    const explained = explainedBy(y, fitted);
    return {
      points: x.map((each, at) => [each, fitted[at]]), slopes, coefficients: slopes.slice(), degree,
      error: restOf(y, fitted) / (y.length - 1), rsquared: explained, r_squared: explained,
    };
  }

  // Curves --------------------------------------------------------------------------------------

  // Of each its value at x, and its derivatives by its three parameters.
  const EQUATIONS = {
    'b + a * e(- x / c)': ([a, b, c], x) => {
      const part = exp(quotient(-x, c));
      return [b + a * part, part, 1, quotient(a * part * x, c * c)];
    },
    '( a - c ) * e( - b * t ) + c': ([a, b, c], x) => {
      const part = exp(-b * x);
      return [(a - c) * part + c, part, -(a - c) * x * part, 1 - part];
    },
    // a x / (x + b) is the same as a / (1 + b / x).
    '( c + a / ( 1 + b / x ) )': ([a, b, c], x) => {
      const part = quotient(x, x + b);
      return [c + a * part, part, -quotient(a * part, x + b), 1];
    },
    '( c + a * a / ( 1 + b / x ) )': ([a, b, c], x) => {
      const part = quotient(x, x + b);
      return [c + a * a * part, 2 * a * part, -quotient(a * a * part, x + b), 1];
    },
  };

  // A curve beside its data: what it says there, how far off that is, and its derivatives as columns.
  function fitOf(curve, x, y, p) {
    const at = x.map((each) => curve(p, each));
    const fitted = at.map((each) => each[0]);
    const off = y.map((each, i) => each - fitted[i]);
    return {
      p, fitted, off, columns: [1, 2, 3].map((by) => at.map((each) => each[by])),
      rest: totalOf(off.map((each) => each * each)),
    };
  }

  // Lengths of the columns, and the Cholesky factor of the normal equations in units of them.
  function inverseOf({ columns }, damping) {
    const lengths = columns.map((column) => sqrt(dot(column, column)));
    if (!lengths.every((length) => length > 0 && length < Infinity)) return null;
    const factor = [[0, 0, 0], [0, 0, 0], [0, 0, 0]];
    for (let i = 0; i < 3; i += 1) {
      for (let j = 0; j <= i; j += 1) {
        let rest = i === j ? 1 + damping : dot(columns[i], columns[j]) / (lengths[i] * lengths[j]);
        for (let k = 0; k < j; k += 1) rest -= factor[i][k] * factor[j][k];
        if (i === j && !(rest > SINGULAR)) return null;
        factor[i][j] = i === j ? sqrt(rest) : rest / factor[j][j];
      }
    }
    return { lengths, factor };
  }

  // The solution of factor * transposed(factor) * x = right.
  function solved(factor, right) {
    const half = [0, 0, 0];
    for (let i = 0; i < 3; i += 1) {
      let rest = right[i];
      for (let k = 0; k < i; k += 1) rest -= factor[i][k] * half[k];
      half[i] = rest / factor[i][i];
    }
    const found = [0, 0, 0];
    for (let i = 2; i >= 0; i -= 1) {
      let rest = half[i];
      for (let k = i + 1; k < 3; k += 1) rest -= factor[k][i] * found[k];
      found[i] = rest / factor[i][i];
    }
    return found;
  }

  // What to add to the parameters, and how much of the data's size that moves the curve by.
  function stepOf(fit, damping) {
    const inverse = inverseOf(fit, damping);
    if (inverse === null) return null;
    const { lengths, factor } = inverse;
    const moves = solved(factor, fit.columns.map((column, at) => dot(column, fit.off) / lengths[at]));
    return { step: moves.map((move, at) => move / lengths[at]), size: largest(moves.map(abs)) };
  }

  const moved = (curve, x, y, fit, { step }) => fitOf(curve, x, y, fit.p.map((each, at) => each + step[at]));

  // Levenberg's and Marquardt's way until the steps are small, then Gauss's and Newton's until they stop shrinking.
  function fittedTo(curve, x, y, start, most) {
    if (y.length < 3 || largest(y) === smallest(y)) return null;
    const size = sqrt(dot(y, y));
    let fit = fitOf(curve, x, y, start);
    let damping = 1e-3;
    for (let count = 1; count <= most; count += 1) {
      const found = Number.isFinite(fit.rest) ? stepOf(fit, damping) : null;
      if (found === null) return null;
      const trial = moved(curve, x, y, fit, found);
      const small = damping <= 1 && found.size <= 1e-7 * size;
      if (trial.rest <= fit.rest || (small && Number.isFinite(trial.rest))) {
        fit = trial;
        damping /= 10;
      } else damping *= 10;
      if (small) return { fit: polished(curve, x, y, fit), count };
    }
    return null;
  }

  function polished(curve, x, y, rough) {
    let fit = rough;
    let last = Infinity;
    for (let count = 0; count < POLISHING_MAX; count += 1) {
      const found = stepOf(fit, 0);
      if (found === null || !(found.size < last)) break;
      const trial = moved(curve, x, y, fit, found);
      if (!Number.isFinite(trial.rest)) break;
      fit = trial;
      last = found.size;
    }
    return fit;
  }

  // Where to begin: of some lifetimes the one with which a decay comes closest, and that decay.
  function nearestDecay(x, y) {
    let lifetime = largest(x) * 0.01;
    let best = Infinity;
    let found = [0, 0, 0];
    const meanY = mean(y);
    for (let count = 0; count < LIFETIMES; count += 1) {
      const part = x.map((each) => exp(-each / lifetime));
      const middle = mean(part);
      const wide = squares(part);
      const a = quotient(totalOf(part.map((each, at) => (each - middle) * (y[at] - meanY))), wide);
      const rest = restOf(y, part.map((each) => meanY + a * (each - middle)));
      if (rest < best) [best, found] = [rest, [a, meanY - a * middle, lifetime]];
      lifetime *= LIFETIME_RATIO;
    }
    return found;
  }

  function MathEXPINVREG(input) {
    const rows = rowsOf('MathEXPINVREG', input, 2);
    const [x, y] = [rows.map((row) => row[0]), rows.map((row) => row[1])];
    if (rows.length < 3 || missing(x) || missing(y) || largest(x) === smallest(x)) return null;
    const first = smallest(x);
    const shifted = x.map((each) => each - first);
    const curve = EQUATIONS['b + a * e(- x / c)'];
    const found = fittedTo(curve, shifted, y, nearestDecay(shifted, y), ITERATIONS);
    if (found === null) return null;
    const { fit } = found;
    const [, b, c] = fit.p;
    const a = fit.p[0] * exp(quotient(first, c));
    const explained = explainedBy(y, fit.fitted);
    return {
      points: x.map((each, at) => [each, fit.fitted[at]]), results: [known(a), known(quotient(-1, c))],
      error: fit.rest / (y.length - 1), asymptote: b, lifetime: c, slope: known(quotient(a, c)), rsquared: explained,
      r_squared: explained, y0: b, a: known(a), t: c, parameters: [b, known(a), c],
    };
  }

  function optionsOf(data, options) {
    const name = 'NonLinearRegression';
    const rows = Array.from(wants(name, 'data', data, 'an array'), (row, at) => numbers(name, `data[${at}]`, row));
    rows.forEach((row, at) => {
      if (row.length !== 2) fail(name, `data[${at}] has ${row.length} values, not 2`);
    });
    wants(name, 'options', options, 'an object');
    for (const option of Object.keys(options).sort()) {
      if (!['equation', 'initial', 'iterations'].includes(option)) fail(name, `options.${option} is not supported`);
    }
    const bare = (text) => text.replaceAll(' ', '');
    const written = typeof options.equation === 'string' ? bare(options.equation) : null;
    const equation = Object.keys(EQUATIONS).find((each) => bare(each) === written);
    if (equation === undefined) fail(name, `options.equation is none of: ${Object.keys(EQUATIONS).join(', ')}`);
    const initial = numbers(name, 'options.initial', options.initial);
    if (initial.length !== 3) fail(name, `options.initial has ${initial.length} values, not 3`);
    const iterations = options.iterations === undefined ? ITERATIONS : options.iterations;
    return { rows, equation, initial, most: whole(name, 'options.iterations', iterations, 1, ITERATIONS_MAX) };
  }

  function NonLinearRegression(data, options) {
    const { rows, equation, initial, most } = optionsOf(data, options);
    const [x, y] = [rows.map((row) => row[0]), rows.map((row) => row[1])];
    if (missing(x) || missing(y) || missing(initial)) return null;
    const found = fittedTo(EQUATIONS[equation], x, y, initial, most);
    if (found === null) return null;
    const { fit, count } = found;
    const error = sqrt(fit.rest / Math.max(1, y.length - 3));
    return {
      text: `Y = ${equation}`, r2: explainedBy(y, fit.fitted), RMS_error: error, iterations: count,
      parameters: parametersOf(fit, error, y.length - 3), points: x.map((each, at) => [each, fit.fitted[at]]),
    };
  }

  function parametersOf(fit, error, freedom) {
    const inverse = inverseOf(fit, 0);
    return fit.p.map((value, at) => {
      let deviation = NaN;
      if (inverse !== null && freedom > 0) {
        const unit = [0, 1, 2].map((i) => (i === at ? 1 : 0));
        deviation = (error * sqrt(solved(inverse.factor, unit)[at])) / inverse.lengths[at];
      }
      const chance = twoSided(quotient(value, deviation), freedom);
      return { name: `P${at + 1}`, value, sd_error: known(deviation), p: known(chance) };
    });
  }

  // How likely Student's t is to be further from 0: the incomplete beta function by its continued fraction.
  function twoSided(t, freedom) {
    if (!Number.isFinite(t)) return NaN;
    const x = freedom / (freedom + t * t);
    // The fraction converges fast on this side; on the other one its mirror image does.
    if (x < (freedom / 2 + 1) / (freedom / 2 + 2.5)) return betaShare(x, 1 - x, freedom, 1);
    return 1 - betaShare((t * t) / (freedom + t * t), x, 1, freedom);
  }

  // The incomplete beta function of one/2 and other/2 at x, relative to the complete one (Lentz's way).
  function betaShare(x, rest, one, other) {
    const [a, b] = [one / 2, other / 2];
    let above = 1;
    let below = 1 / (1 - ((a + b) * x) / (a + 1));
    let value = below;
    const take = (term) => {
      below = 1 / (1 + term * below);
      above = 1 + term / above;
      value *= below * above;
    };
    for (let m = 1; m <= 300; m += 1) {
      take((m * (b - m) * x) / ((a + 2 * m - 1) * (a + 2 * m)));
      take((-(a + m) * (a + b + m) * x) / ((a + 2 * m) * (a + 2 * m + 1)));
      if (abs(below * above - 1) < 1e-15) break;
    }
    return ((power(sqrt(x), one) * power(sqrt(rest), other)) / (a * beta(Math.max(one, other)))) * value;
  }

  // The complete beta function of whole/2 and 1/2.
  function beta(doubled) {
    let [value, at] = doubled % 2 ? [Math.PI, 1] : [2, 2];
    for (; at < doubled; at += 2) value *= at / (at + 1);
    return value;
  }

  function power(base, exponent) {
    let value = 1;
    for (let left = exponent; left > 0; left = floor(left / 2)) {
      if (left % 2) value *= base;
      base *= base;
    }
    return value;
  }

  // Traces --------------------------------------------------------------------------------------

  const ARITHMETIC = {
    add: (a, b) => a + b, '+': (a, b) => a + b, subtract: (a, b) => a - b, '-': (a, b) => a - b,
    multiply: (a, b) => a * b, '*': (a, b) => a * b, divide: quotient, '/': quotient,
  };
  const SHAPES = ['normToMin', 'normToMax', 'normToRange', 'normToIdx', 'normToVal', 'ma', 'sgf', 'abs'];
  const TRACES = [...Object.keys(ARITHMETIC), ...SHAPES];

  function TransformTrace(fn, a1, a2) {
    if (!TRACES.includes(fn)) fail('TransformTrace', `fn is none of: ${TRACES.join(', ')}`);
    const trace = numbers('TransformTrace', 'a1', a1);
    const second = plain(a2);
    if (Object.hasOwn(ARITHMETIC, fn)) return paired(fn, trace, second).map(known);
    return trace.length > 0 ? shaped(fn, trace, second).map(known) : [];
  }

  function paired(fn, trace, second) {
    let others = [];
    if (Array.isArray(second)) {
      others = numbers('TransformTrace', 'a2', second);
      sameLength('TransformTrace', 'a1', trace, 'a2', others);
    } else if (kind(second) === 'a number') {
      others = trace.map(() => number('TransformTrace', 'a2', second));
    } else fail('TransformTrace', `a2 is ${kind(second)}, not a number or an array`);
    return trace.map((each, at) => ARITHMETIC[fn](each, others[at]));
  }

  function shaped(fn, trace, second) {
    if (fn === 'ma') {
      const wide = [trace[0], ...trace, trace.at(-1)];
      return trace.map((_, at) => (wide[at] + wide[at + 1] + wide[at + 2]) / 3);
    }
    if (fn === 'sgf') return smoothed(trace);
    if (fn === 'abs') {
      const first = kind(second) === 'null' ? trace[0] : number('TransformTrace', 'a2', second);
      const shares = trace.map((each) => (first > 0 ? quotient(each, first) : NaN));
      return shares.map((each) => (each > 0 ? 0 - Math.log10(each) : NaN));
    }
    if (fn === 'normToVal') {
      const unit = number('TransformTrace', 'a2', wants('TransformTrace', 'a2', second, 'a number'));
      return trace.map((each) => quotient(each, unit));
    }
    if (fn === 'normToIdx') {
      const unit = trace[whole('TransformTrace', 'a2', second, 0, trace.length - 1)];
      return trace.map((each) => quotient(each, unit));
    }
    if (missing(trace)) return trace.map(() => NaN);
    const [low, high] = [smallest(trace), largest(trace)];
    if (fn === 'normToRange') return trace.map((each) => quotient(each - low, high - low));
    return trace.map((each) => quotient(each, fn === 'normToMin' ? low : high));
  }

  // Savitzky's and Golay's filter: parabolas through seven values each, of a trace mirrored at its ends.
  function smoothed(trace) {
    if (trace.length < 7) return trace;
    const w = [...trace.slice(0, 3).reverse(), ...trace, ...trace.slice(-3).reverse()];
    return trace.map((_, at) => {
      const i = at + 3;
      const sum = -2 * w[i - 3] + 3 * w[i - 2] + 6 * w[i - 1] + 7 * w[i] + 6 * w[i + 1] + 3 * w[i + 2] - 2 * w[i + 3];
      return sum / 21;
    });
  }

  // The sun -------------------------------------------------------------------------------------

  function calcSunAngle(roll, pitch, compass, azimuth, altitude) {
    const angles = Object.entries({ roll, pitch, compass, azimuth, altitude }).map(
      ([what, value]) => number('calcSunAngle', what, value) * (Math.PI / 180),
    );
    if (missing(angles)) return null;
    const [r, p, c, az, alt] = angles;
    const { sin, cos } = Math;
    const device = [sin(r) * cos(p), -sin(p), cos(r) * cos(p)];
    const sun = [cos(alt) * sin(az - c), cos(alt) * cos(az - c), sin(alt)];
    const cross = [
      device[1] * sun[2] - device[2] * sun[1],
      device[2] * sun[0] - device[0] * sun[2],
      device[0] * sun[1] - device[1] * sun[0],
    ];
    const along = dot(device, sun);
    const angle = Math.atan2(sqrt(dot(cross, cross)), along) / (Math.PI / 180);
    return { angle, percent: 100 * Math.max(0, along) };
  }

  // Messages ------------------------------------------------------------------------------------

  // Appends to `output.messages.<level>`; without an output it is the global variable of that name.
  function say(level, msg, given) {
    const output = given ?? globalThis.output;
    wants(level, 'output', output, 'an object');
    const messages = wants(level, 'output.messages', output.messages ?? {}, 'an object');
    const said = wants(level, `output.messages.${level}`, messages[level] ?? [], 'an array');
    messages[level] = [...said, msg];
    output.messages = messages;
    return output;
  }

  const info = (msg, output) => say('info', msg, output);
  const warning = (msg, output) => say('warning', msg, output);
  const danger = (msg, output) => say('danger', msg, output);

  const all = {
    ArrayNth, ArrayRange, ArrayUnZip, ArrayZip, GetIndexByLabel, GetLabelLookup, GetProtocolByLabel, MathEXPINVREG,
    MathLINREG, MathLN, MathLOG, MathMAX, MathMEAN, MathMEDIAN, MathMIN, MathMULTREG, MathPOLYREG, MathROUND, MathSTDERR,
    MathSTDEV, MathSTDEVS, MathSUM, MathVARIANCE, NonLinearRegression, TransformTrace, calcSunAngle, danger, info, warning,
  };
  for (const [name, value] of Object.entries(all)) {
    Object.defineProperty(globalThis, name, { value, writable: true, configurable: true });
  }
})();
