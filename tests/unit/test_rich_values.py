"""Values with more types than JSON: whatever is encoded is decoded to the same, identities included."""

from __future__ import annotations

import json
import subprocess

import pytest
from tests.unit.guests import interpreter

from casemate.runtimes.bytecode import GUEST_FILES

BEGIN = """
const assert = require('assert');
const { types } = require('util');
const { encode, decode } = require(process.argv[1])(types);
const there = (value) => JSON.parse(JSON.stringify(encode(value)));
"""

RANDOM = """
let seed = Number(process.argv[2]);
const random = (most) => { seed = (seed * 1103515245 + 12345) % 2147483648; return Math.floor(seed / 65536) % most; };
const KEYS = ['a', 'b.c', 'd\\\\e', '\\\\.', '', '0', '__proto__', 'constructor'];
const LEAVES = [
  () => undefined, () => null, () => NaN, () => -0, () => -Infinity, () => random(100) / 7, () => 5n,
  () => 'x\\ud83d\\ude00', () => true, () => new Date(random(1e9)), () => /a\\/[/]/gi, () => new RangeError('far'),
  () => new URL('https://example.org/?q=1'), () => new Uint8Array([1, 255]), () => new Float64Array([NaN, -0, 0.1]),
  () => new BigInt64Array([-1n, 2n]),
];
function value(depth, made) {
  if (made.length > 0 && random(5) === 0) return made[random(made.length)];
  if (depth === 0 || random(3) === 0) return LEAVES[random(LEAVES.length)]();
  const below = () => value(depth - 1, made);
  const kind = random(4);
  const found = [{}, [], new Map(), new Set()][kind];
  const put = (value) => ({ value, enumerable: true, writable: true, configurable: true });
  made.push(found);
  for (let count = random(5); count > 0; count -= 1) {
    if (kind === 0) Object.defineProperty(found, KEYS[random(KEYS.length)], put(below()));
    if (kind === 1) found.push(below());
    if (kind === 2) found.set(below(), below());
    if (kind === 3) found.add(below());
  }
  return found;
}
for (let round = 0; round < 400; round += 1) {
  const made = value(5, []);
  const wire = there(made);
  const back = decode(structuredClone(wire));
  assert.deepStrictEqual(there(back), wire);
  if (!JSON.stringify(wire).includes('__proto__')) assert.deepStrictEqual(back, made);
}
console.log('same');
"""

SHOWN = """
const shown = [];
for (const made of [
  [undefined, 1n], new Map([[1, { a: new Date(0) }]]), { a: { b: new Set([NaN]) } }, { 'a.b': { 'c\\\\d': undefined } },
]) shown.push(there(made));
assert(Number.isNaN(decode(there(new Date(NaN))).getTime()));
const same = { n: 1 };
shown.push(there({ a: same, b: [same] }));
same.self = same;
shown.push(there(same));
console.log(JSON.stringify(shown));
"""


def told(program: str, *words: str) -> str:
    command = [interpreter("node"), "-e", BEGIN + program, str(GUEST_FILES / "rich.js"), *words]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


@pytest.mark.parametrize("seed", range(1, 6))
def test_there_and_back_is_the_same(seed: int) -> None:
    assert told(RANDOM, str(seed)) == "same"


def test_the_form_is_the_one_that_others_read() -> None:
    assert json.loads(told(SHOWN)) == [
        {"json": [None, "1"], "meta": {"values": {"0": ["undefined"], "1": ["bigint"]}, "v": 1}},
        {"json": [[1, {"a": "1970-01-01T00:00:00.000Z"}]], "meta": {"values": ["map", {"0.1.a": ["Date"]}], "v": 1}},
        {"json": {"a": {"b": ["NaN"]}}, "meta": {"values": {"a.b": ["set", {"0": ["number"]}]}, "v": 1}},
        {"json": {"a.b": {"c\\d": None}}, "meta": {"values": {"a\\.b.c\\\\d": ["undefined"]}, "v": 1}},
        {"json": {"a": {"n": 1}, "b": [None]}, "meta": {"referentialEqualities": {"a": ["b.0"]}, "v": 1}},
        {"json": {"n": 1, "self": None}, "meta": {"referentialEqualities": [["self"]], "v": 1}},
    ]
