// One plant: its largest uptake, and the saturation curve uptake = vmax * conc / (k + conc) that fits it best.
// Started from the Hanes-Woolf line, refined by Gauss-Newton steps. The twins of this file are saturation.py and .R.

const TOLERANCE = 1e-13;
const STEPS_MAX = 200;

const sum = (values) => values.reduce((total, value) => total + value, 0);

// The line conc/uptake = conc/vmax + k/vmax, by least squares.
function hanesWoolf(conc, uptake) {
  const ratio = conc.map((c, i) => c / uptake[i]);
  const meanC = sum(conc) / conc.length;
  const meanR = sum(ratio) / ratio.length;
  const above = sum(conc.map((c, i) => (c - meanC) * (ratio[i] - meanR)));
  const slope = above / sum(conc.map((c) => (c - meanC) ** 2));
  return [1 / slope, (meanR - slope * meanC) / slope];
}

// What to add to vmax and k: the solution of the two normal equations.
function gaussNewtonStep(conc, uptake, vmax, k) {
  let [a, b, c, p, q] = [0, 0, 0, 0, 0];
  conc.forEach((x, i) => {
    const byVmax = x / (k + x);
    const byK = (-vmax * x) / (k + x) ** 2;
    const rest = uptake[i] - vmax * byVmax;
    a += byVmax * byVmax;
    b += byVmax * byK;
    c += byK * byK;
    p += byVmax * rest;
    q += byK * rest;
  });
  const determinant = a * c - b * b;
  return [(c * p - b * q) / determinant, (a * q - b * p) / determinant];
}

function fit(conc, uptake) {
  let [vmax, k] = hanesWoolf(conc, uptake);
  for (let step = 0; step < STEPS_MAX; step += 1) {
    const [moreVmax, moreK] = gaussNewtonStep(conc, uptake, vmax, k);
    vmax += moreVmax;
    k += moreK;
    if (Math.abs(moreVmax) <= TOLERANCE * Math.abs(vmax) && Math.abs(moreK) <= TOLERANCE * Math.abs(k)) break;
  }
  return [vmax, k];
}

function rSquared(conc, uptake, vmax, k) {
  const mean = sum(uptake) / uptake.length;
  const unexplained = sum(conc.map((x, i) => (uptake[i] - (vmax * x) / (k + x)) ** 2));
  return 1 - unexplained / sum(uptake.map((y) => (y - mean) ** 2));
}

function main({ conc, uptake }) {
  const [vmax, k] = fit(conc, uptake);
  return { maximum: Math.max(...uptake), vmax, k, r_squared: rSquared(conc, uptake, vmax, k) };
}
