// What a program's value, or its error, becomes as the text of a reply: for every harness of this language the same.
//
// It runs where the program ran, which may have changed whatever it uses. The program then spoils its own reply: whoever
// reads that trusts nothing in it. `types` are the tests of Node's `util.types`.
'use strict';

function repliesWith({ types, isBuffer, toBase64, byteLength }) {
  const VALUE_MAX_BYTES = 10 * 1024 * 1024;
  const DEPTH_MAX = 200;
  const DIGITS_MAX = 4300;
  const TEXT_MAX_CHARS = 16384;
  const KEY_MAX_CHARS = 80;
  const { stringify } = JSON;

  // The text of a reply; undefined is no value.
  function textOfValue(value) {
    if (value === undefined) return replyText({ kind: 'none' });
    try {
      return `{"kind":"value","output":${topText(value)}}`;
    } catch (error) {
      const problem = error instanceof Unwritable ? error.problem() : `output: converting it failed with ${first(error)}`;
      return replyText({ kind: 'invalid', error: plain({ type: 'InvalidOutput', message: clip(problem), traceback: '' }) });
    }
  }

  // The same for a value in a form of its own, which `encode` makes of it: nothing at all has one, too.
  function textOfRich(value, encode) {
    try {
      return textOfValue(encode(value));
    } catch (error) {
      const { type, message } = describe(error);
      const problem = `output: ${type === 'Unencodable' ? message : `converting it failed with ${type}: ${message}`}`;
      return replyText({ kind: 'invalid', error: plain({ type: 'InvalidOutput', message: clip(problem), traceback: '' }) });
    }
  }

  function textOfError(error) {
    return replyText({ kind: 'exception', error: plain(error) });
  }

  function replyText(reply) {
    return stringify(plain(reply));
  }

  // Without a prototype: the program's may have a `toJSON`.
  function plain(fields) {
    return { __proto__: null, ...fields };
  }

  function describe(error) {
    const isError = attempt(() => types.isNativeError(error) || error instanceof Error);
    const read = (name) => (isError ? attempt(() => String(error[name])) : undefined);
    return {
      type: clip(read('name') ?? typeof error),
      message: clip(read('message') ?? thrownText(error)),
      traceback: clip(read('stack') ?? ''),
    };
  }

  // What is thrown need not be an error; of an object that has no text of its own, its contents say more.
  function thrownText(value) {
    const text = attempt(() => String(value));
    if (text !== undefined && text !== '[object Object]') return text;
    return attempt(() => toText(value, [])) ?? text ?? '';
  }

  function first(error) {
    const { type, message } = describe(error);
    return `${type}: ${message}`;
  }

  function clip(text) {
    return wellFormed(text.slice(0, TEXT_MAX_CHARS));
  }

  function attempt(read) {
    try {
      return read();
    } catch {
      return undefined;
    }
  }

  // Values as JSON ------------------------------------------------------------------------------

  class Unwritable extends Error {
    constructor(message) {
      super(message);
      this.path = '';
    }

    below(key) {
      const isName = typeof key === 'string' && /^[A-Za-z_$][\w$]*$/.test(key) && key.length <= KEY_MAX_CHARS;
      this.path = (isName ? `.${key}` : `[${stringify(key).slice(0, KEY_MAX_CHARS)}]`) + this.path;
      return this;
    }

    problem() {
      return `output${this.path}: ${this.message}`;
    }
  }

  function topText(value) {
    const text = toText(value, []);
    if (text === undefined) throw new Unwritable(`a ${typeof value} cannot be written as JSON`);
    if (byteLength(text) > VALUE_MAX_BYTES - 64) throw tooLarge();
    return text;
  }

  function tooLarge() {
    return new Unwritable(`more than the ${VALUE_MAX_BYTES} bytes of JSON that are allowed`);
  }

  // The text of a value; undefined for what has none and is left out: undefined itself, functions and symbols.
  function toText(value, above) {
    switch (typeof value) {
      case 'string':
        return stringify(wellFormed(value));
      case 'number':
        return Number.isFinite(value) ? stringify(value) : 'null';
      case 'boolean':
        return value ? 'true' : 'false';
      case 'bigint':
        return integerText(value);
      case 'object':
        return value === null ? 'null' : objectText(value, above);
      default:
        return undefined;
    }
  }

  // Half of a surrogate pair, which UTF-8 cannot hold, becomes the replacement character.
  function wellFormed(text) {
    return text.replace(/\p{Surrogate}/gu, '\ufffd');
  }

  function integerText(value) {
    const digits = value.toString();
    if (digits.length > DIGITS_MAX) throw new Unwritable(`an integer of more than ${DIGITS_MAX} digits`);
    return digits;
  }

  function objectText(value, above) {
    if (above.includes(value)) throw new Unwritable('circular reference');
    if (above.length >= DEPTH_MAX) throw new Unwritable(`nested more than ${DEPTH_MAX} deep`);
    above.push(value);
    try {
      if (isBuffer(value)) return stringify(toBase64(value));
      if (typeof value.toJSON !== 'function') return containerText(value, above);
      const converted = value.toJSON();
      if (converted === value || typeof converted !== 'object' || converted === null) {
        return converted === value ? containerText(value, above) : toText(converted, above);
      }
      return containerText(converted, above);
    } finally {
      above.pop();
    }
  }

  function containerText(value, above) {
    if (Array.isArray(value) || types.isTypedArray(value)) return arrayText(value, above);
    if (types.isSet(value)) return arrayText([...value], above);
    if (types.isMap(value)) return entriesText([...value].map(([key, item]) => [keyText(key), item]), above);
    if (types.isBoxedPrimitive(value)) return toText(value.valueOf(), above);
    if (types.isAnyArrayBuffer(value)) return stringify(toBase64(new Uint8Array(value)));
    if (types.isDataView(value)) {
      return stringify(toBase64(new Uint8Array(value.buffer, value.byteOffset, value.byteLength)));
    }
    if (types.isNativeError(value)) return stringify(plain({ name: clip(`${value.name}`), message: clip(`${value.message}`) }));
    const refused = REFUSED.find(([isKind]) => isKind(value));
    if (refused) throw new Unwritable(`a ${refused[1]} cannot be written as JSON`);
    return entriesText(Object.keys(value).map((key) => [key, value[key]]), above);
  }

  const REFUSED = [
    [types.isPromise, 'Promise'],
    [types.isRegExp, 'RegExp'],
    [types.isWeakMap, 'WeakMap'],
    [types.isWeakSet, 'WeakSet'],
    [types.isGeneratorObject, 'generator'],
    [types.isMapIterator, 'iterator'],
    [types.isSetIterator, 'iterator'],
  ];

  function arrayText(values, above) {
    let text = '';
    for (let index = 0; index < values.length; index += 1) {
      text += (index ? ',' : '') + (within(index, values[index], above) ?? 'null');
      if (text.length > VALUE_MAX_BYTES) throw tooLarge();
    }
    return `[${text}]`;
  }

  function entriesText(entries, above) {
    const seen = new Set();
    let text = '';
    for (const [key, value] of entries) {
      const item = within(key, value, above);
      if (item === undefined) continue;
      const name = stringify(wellFormed(key));
      if (seen.has(name)) throw new Unwritable(`two keys become ${name.slice(0, KEY_MAX_CHARS)}`);
      seen.add(name);
      text += `${text ? ',' : ''}${name}:${item}`;
      if (text.length > VALUE_MAX_BYTES) throw tooLarge();
    }
    return `{${text}}`;
  }

  function within(key, value, above) {
    try {
      return toText(value, above);
    } catch (error) {
      throw error instanceof Unwritable ? error.below(key) : error;
    }
  }

  // The name of a Map's entry whose key is not text: what the value would be written as.
  function keyText(key) {
    if (typeof key === 'string') return key;
    if (key !== null && (typeof key === 'object' || typeof key === 'function' || typeof key === 'symbol')) {
      throw new Unwritable(`a key of type ${typeof key} cannot be a name`);
    }
    return toText(key, []) ?? 'undefined';
  }

  return { clip, describe, textOfError, textOfRich, textOfValue };
}

if (typeof module === 'object') module.exports = repliesWith;
