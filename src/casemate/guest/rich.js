// Values with more types than JSON has, as data in JSON: `{json, meta}`, the form that SuperJSON writes and reads.
//
// `json` is the value as far as JSON goes; `meta.values` says of which type what stands at a path really is, and
// `meta.referentialEqualities` which paths are one and the same object: at all but the first of them `json` has null. So
// whatever is written is as large as the value is, however often its parts are shared.
'use strict';

function richWith(types) {
  const DEPTH_MAX = 200;
  const NODES_MAX = 500000;
  const PATHS_VERSION = 1;
  const PATH_SEPARATOR = '.';
  const ERRORS = { EvalError, RangeError, ReferenceError, SyntaxError, TypeError, URIError };
  const Url = typeof URL === 'function' ? URL : undefined;
  const TYPED = ['Int8Array', 'Uint8Array', 'Uint8ClampedArray', 'Int16Array', 'Uint16Array', 'Int32Array', 'Uint32Array'];
  const arrays = new Map([...TYPED, 'Float32Array', 'Float64Array', 'BigInt64Array', 'BigUint64Array'].map(arrayKind));
  const { defineProperty, hasOwn, keys } = Object;
  const numberTexts = new Map([['NaN', NaN], ['Infinity', Infinity], ['-Infinity', -Infinity], ['-0', -0]]);

  function arrayKind(name) {
    return [name, globalThis[name]];
  }

  // Writing -------------------------------------------------------------------------------------

  function encode(value) {
    const state = { nodes: 0, paths: new Map() };
    const { json, tree } = walk(value, [], state);
    const values = tree?.type === undefined ? nonempty(flat(tree, '')) : compact(tree);
    const meta = { values, referentialEqualities: equalities(state.paths), v: PATHS_VERSION };
    return meta.values === undefined && meta.referentialEqualities === undefined ? { json } : { json, meta };
  }

  // The JSON of a value, and a tree of the types below it.
  function walk(value, path, state) {
    state.nodes += 1;
    if (state.nodes > NODES_MAX) throw unencodable(`more than ${NODES_MAX} values`);
    if (path.length > DEPTH_MAX) throw unencodable(`nested more than ${DEPTH_MAX} deep`);
    if (typeof value !== 'object' || value === null) return primitive(value);
    const seen = state.paths.get(value);
    if (seen !== undefined) {
      seen.push([...path]);
      return { json: null };
    }
    state.paths.set(value, [[...path]]);
    return object(value, path, state);
  }

  function primitive(value) {
    switch (typeof value) {
      case 'undefined':
      case 'function':
      case 'symbol':
        return { json: null, tree: { type: 'undefined' } };
      case 'bigint':
        return { json: `${value}`, tree: { type: 'bigint' } };
      case 'number':
        return Number.isFinite(value) && !Object.is(value, -0)
          ? { json: value }
          : { json: numberText(value), tree: { type: 'number' } };
      default:
        return { json: value };
    }
  }

  function numberText(value) {
    return Object.is(value, -0) ? '-0' : `${value}`;
  }

  function object(value, path, state) {
    if (types.isDate(value)) return { json: dateText(value), tree: { type: 'Date' } };
    if (types.isRegExp(value)) return { json: `/${value.source}/${value.flags}`, tree: { type: 'regexp' } };
    if (types.isNativeError(value)) return errorOf(value);
    if (Url !== undefined && value instanceof Url) return { json: value.href, tree: { type: 'URL' } };
    if (types.isTypedArray(value)) return typed(value);
    if (types.isAnyArrayBuffer(value)) return typed(new Uint8Array(value));
    if (types.isDataView(value)) return typed(new Uint8Array(value.buffer, value.byteOffset, value.byteLength));
    if (types.isBoxedPrimitive(value)) return primitive(value.valueOf());
    if (types.isSet(value)) return elements([...value], path, state, 'set');
    if (types.isMap(value)) return elements([...value], path, state, 'map');
    if (Array.isArray(value)) return elements(value, path, state, undefined);
    return fields(value, path, state);
  }

  function dateText(value) {
    return Number.isNaN(value.getTime()) ? 'Invalid Date' : value.toISOString();
  }

  function errorOf(value) {
    return { json: { name: `${value.name}`, message: `${value.message}` }, tree: { type: 'Error' } };
  }

  function typed(value) {
    const name = [...arrays].find(([, kind]) => value instanceof kind)?.[0] ?? 'Uint8Array';
    const json = Array.from(value, (each) => {
      if (typeof each === 'bigint') return `${each}`;
      return Number.isFinite(each) && !Object.is(each, -0) ? each : numberText(each);
    });
    return { json, tree: { type: ['typed-array', name] } };
  }

  function elements(items, path, state, type) {
    const json = [];
    const below = [];
    for (let index = 0; index < items.length; index += 1) {
      const step = type === 'map' ? pair : walk;
      const { json: item, tree } = step(items[index], [...path, `${index}`], state);
      json.push(item);
      if (tree !== undefined) below.push([`${index}`, tree]);
    }
    return { json, tree: branch(type, below) };
  }

  // An entry of a map is no object that anything else could be the same as.
  function pair(entry, path, state) {
    return elements(entry, path, state, undefined);
  }

  function fields(value, path, state) {
    const json = {};
    const below = [];
    for (const key of keys(value)) {
      const { json: item, tree } = walk(value[key], [...path, key], state);
      put(json, key, item);
      if (tree !== undefined) below.push([key, tree]);
    }
    return { json, tree: branch(undefined, below) };
  }

  function branch(type, below) {
    return type === undefined && below.length === 0 ? undefined : { type, below };
  }

  // A typed node is `[type]`, or `[type, what is below]`; nodes without a type become parts of the paths of others.
  function compact({ type, below = [] }) {
    const inner = nonempty(flat({ below }, ''));
    return inner === undefined ? [type] : [type, inner];
  }

  function flat(tree, start, found = {}) {
    for (const [key, node] of tree?.below ?? []) {
      const path = `${start}${escaped(key)}`;
      if (node.type === undefined) flat(node, `${path}${PATH_SEPARATOR}`, found);
      else put(found, path, compact(node));
    }
    return found;
  }

  function equalities(paths) {
    const others = {};
    let root;
    for (const [first, ...again] of paths.values()) {
      if (again.length === 0) continue;
      const texts = again.map(pathText);
      if (first.length === 0) root = texts;
      else put(others, pathText(first), texts);
    }
    if (root === undefined) return nonempty(others);
    return nonempty(others) === undefined ? [root] : [root, others];
  }

  function nonempty(found) {
    return keys(found).length === 0 ? undefined : found;
  }

  function pathText(path) {
    return path.map(escaped).join(PATH_SEPARATOR);
  }

  function escaped(key) {
    return key.replace(/\\/g, '\\\\').replace(/\./g, '\\.');
  }

  function unencodable(message) {
    const error = new Error(message);
    error.name = 'Unencodable';
    return error;
  }

  // Reading -------------------------------------------------------------------------------------

  function decode({ json, meta }) {
    const holder = { json };
    const contents = new Map();
    const state = { holder, contents, isOld: !(meta?.v >= PATHS_VERSION) };
    if (meta?.values !== undefined) applyTypes(state, ['json'], meta.values, 0);
    applyEqualities(state, meta?.referentialEqualities);
    for (const [made, items] of contents) fill(made, items);
    return holder.json;
  }

  // Only now: until what is the same had been put there, several of them held null.
  function fill(made, items) {
    for (const item of items) {
      if (types.isSet(made)) made.add(item);
      else made.set(item[0], item[1]);
    }
  }

  // What is below comes first.
  function applyTypes(state, path, tree, depth) {
    if (depth > DEPTH_MAX) throw malformed('nested too deep');
    const [type, below] = Array.isArray(tree) ? tree : [undefined, tree];
    for (const key of keys(below ?? {})) {
      applyTypes(state, [...path, ...pathOf(key, state.isOld)], below[key], depth + 1);
    }
    if (type !== undefined) replace(state, path, (value) => revived(type, value, state.contents));
  }

  function applyEqualities(state, given) {
    if (given === undefined) return;
    const pathTo = (text) => ['json', ...pathOf(text, state.isOld)];
    const [root, others] = Array.isArray(given) ? given : [[], given];
    for (const path of root) replace(state, pathTo(path), () => state.holder.json);
    for (const first of keys(others ?? {})) {
      const same = at(state, pathTo(first));
      for (const path of others[first]) replace(state, pathTo(path), () => same);
    }
  }

  function revived(type, value, contents) {
    if (Array.isArray(type) && type[0] === 'typed-array') return revivedArray(type[1], value);
    switch (type) {
      case 'undefined':
        return undefined;
      case 'bigint':
        return BigInt(value);
      case 'number':
        return numberTexts.get(value) ?? Number(value);
      case 'Date':
        return new Date(value);
      case 'regexp':
        return new RegExp(value.slice(1, value.lastIndexOf('/')), value.slice(value.lastIndexOf('/') + 1));
      case 'Error':
        return revivedError(value);
      case 'set':
        return kept(new Set(), value, contents);
      case 'map':
        return kept(new Map(), value, contents);
      case 'URL':
        return Url === undefined ? value : new Url(value);
      default:
        throw malformed('an unknown type');
    }
  }

  function kept(made, items, contents) {
    if (!Array.isArray(items)) throw malformed('a collection that is no array');
    contents.set(made, items);
    return made;
  }

  function revivedArray(name, value) {
    const kind = arrays.get(name);
    if (kind === undefined || !Array.isArray(value)) throw malformed('an unknown kind of array');
    return new kind(value);
  }

  function revivedError({ name, message }) {
    const error = new (hasOwn(ERRORS, name) ? ERRORS[name] : Error)(message);
    if (error.name !== name) defineProperty(error, 'name', { value: name, writable: true, configurable: true });
    return error;
  }

  function pathOf(text, isOld) {
    const parts = [''];
    for (let index = 0; index < text.length; index += 1) {
      const char = text[index];
      const next = text[index + 1];
      if (char === '\\' && (next === '.' || (next === '\\' && !isOld))) {
        parts[parts.length - 1] += next;
        index += 1;
      } else if (char === PATH_SEPARATOR) parts.push('');
      else parts[parts.length - 1] += char;
    }
    return parts;
  }

  function at({ holder, contents }, path) {
    return path.reduce((value, key) => {
      const owner = contents.get(value) ?? value;
      if (typeof owner !== 'object' || owner === null || !hasOwn(owner, key)) throw malformed('a path that leads nowhere');
      return owner[key];
    }, holder);
  }

  function replace(state, path, change) {
    const value = change(at(state, path));
    const owner = at(state, path.slice(0, -1));
    put(state.contents.get(owner) ?? owner, path.at(-1), value);
  }

  function put(owner, key, value) {
    defineProperty(owner, key, { value, writable: true, enumerable: true, configurable: true });
  }

  function malformed(what) {
    const error = new TypeError(`the input is not of the form {json, meta}: ${what}`);
    error.name = 'MalformedInput';
    return error;
  }

  return { decode, encode };
}

if (typeof module === 'object') module.exports = richWith;
