// `console` and how it writes values: close to Node's own, without its colours and its alignment of long arrays.
'use strict';

function inspectorFor(types) {
  const DEPTH_MAX = 2;
  const ITEMS_MAX = 100;
  const LINE_MAX_CHARS = 72;
  const PLAIN_KEY = /^[A-Za-z_$][\w$]*$/;
  const { stringify } = JSON;

  return { format, inspect };

  // As console.log joins its arguments: a first text with `%s` and the like takes some of the others.
  function format(args) {
    const [first, ...rest] = args;
    if (typeof first !== 'string') return args.map(shown).join(' ');
    const text = rest.length === 0 ? first : first.replace(/%[sdifjoOc%]/g, (mark) => filled(mark, rest));
    return [text, ...rest.map(shown)].join(' ');
  }

  function filled(mark, rest) {
    if (mark === '%%') return '%';
    if (rest.length === 0) return mark;
    const value = rest.shift();
    switch (mark) {
      case '%s':
        return typeof value === 'bigint' ? `${value}n` : shown(value, 0);
      case '%d':
        return numberText(value, Number);
      case '%i':
        return numberText(value, parseInt);
      case '%f':
        return typeof value === 'symbol' ? 'NaN' : String(parseFloat(value));
      case '%j':
        return stringify(value);
      case '%c':
        return '';
      default:
        return inspect(value, 4);
    }
  }

  function numberText(value, convert) {
    if (typeof value === 'bigint') return `${value}n`;
    return typeof value === 'symbol' || typeof value === 'object' ? 'NaN' : String(convert(value));
  }

  function shown(value) {
    return typeof value === 'string' ? value : inspect(value);
  }

  function inspect(value, depth = DEPTH_MAX) {
    return written(value, [], depth);
  }

  function written(value, above, depth) {
    switch (typeof value) {
      case 'string':
        return quoted(value);
      case 'number':
        return Object.is(value, -0) ? '-0' : String(value);
      case 'bigint':
        return `${value}n`;
      case 'function':
        return functionText(value);
      case 'object':
        return value === null ? 'null' : objectText(value, above, depth);
      default:
        return String(value);
    }
  }

  function quoted(text) {
    const mark = ["'", '"', '`'].find((each) => !text.includes(each)) ?? "'";
    const escaped = stringify(text).slice(1, -1).replace(/\\"/g, '"');
    return mark + (mark === "'" ? escaped.replace(/'/g, "\\'") : escaped) + mark;
  }

  function functionText(value) {
    const kind = /^class\b/.test(Function.prototype.toString.call(value)) ? 'class' : kindOf(value);
    if (kind === 'class') {
      const { name } = Object.getPrototypeOf(value) ?? {};
      return `[class ${value.name || '(anonymous)'}${name ? ` extends ${name}` : ''}]`;
    }
    return value.name ? `[${kind}: ${value.name}]` : `[${kind} (anonymous)]`;
  }

  function kindOf(value) {
    return Object.prototype.toString.call(value).slice(8, -1);
  }

  function objectText(value, above, depth) {
    if (above.includes(value)) return '[Circular]';
    const name = nameOf(value);
    if (types.isNativeError(value)) return errorText(value);
    if (types.isRegExp(value)) return RegExp.prototype.toString.call(value);
    if (types.isDate(value)) return Number.isNaN(value.getTime()) ? 'Invalid Date' : value.toISOString();
    if (types.isBoxedPrimitive(value)) return `[${kindOf(value)}: ${written(value.valueOf(), above, depth)}]`;
    if (types.isWeakMap(value) || types.isWeakSet(value)) return `${name} { <items unknown> }`;
    if (types.isPromise(value) || types.isAnyArrayBuffer(value)) return `${name} {}`;
    if (types.isGeneratorObject(value)) return 'Object [Generator] {}';
    if (above.length > depth) return Array.isArray(value) ? '[Array]' : `[${name || 'Object: null prototype'}]`;
    above.push(value);
    try {
      return containerText(value, name, above, depth);
    } finally {
      above.pop();
    }
  }

  function errorText(value) {
    if (typeof value.stack !== 'string' || !value.stack) return `[${String(value)}]`;
    return value.stack.split('\n').filter((line) => !OURS.test(line)).join('\n');
  }

  function nameOf(value) {
    const parent = Object.getPrototypeOf(value);
    return parent === null ? '' : String(parent.constructor?.name ?? 'Object');
  }

  function containerText(value, name, above, depth) {
    const inner = (item) => written(item, above, depth);
    if (Array.isArray(value)) return enclosed(name === 'Array' ? '' : `${name}(${value.length}) `, '[', items(value, inner), ']');
    if (types.isTypedArray(value)) return enclosed(`${name}(${value.length}) `, '[', items(value, inner), ']');
    if (types.isSet(value)) return enclosed(`${name}(${value.size}) `, '{', items([...value], inner), '}');
    if (types.isMap(value)) {
      const pairs = [...value].map(([key, item]) => `${inner(key)} => ${inner(item)}`);
      return enclosed(`${name}(${value.size}) `, '{', pairs, '}');
    }
    const prefix = name === 'Object' ? '' : `${name || '[Object: null prototype]'} `;
    return enclosed(prefix, '{', propertiesOf(value, inner), '}');
  }

  function items(values, inner) {
    const texts = [];
    for (let at = 0; at < Math.min(values.length, ITEMS_MAX); at += 1) {
      texts.push(at in values ? inner(values[at]) : '<1 empty item>');
    }
    const left = values.length - ITEMS_MAX;
    return left > 0 ? [...texts, `... ${left} more item${left > 1 ? 's' : ''}`] : texts;
  }

  function propertiesOf(value, inner) {
    return Reflect.ownKeys(value)
      .map((key) => [key, Object.getOwnPropertyDescriptor(value, key)])
      .filter(([, found]) => found?.enumerable)
      .map(([key, found]) => `${keyText(key)}: ${'value' in found ? inner(found.value) : accessorText(found)}`);
  }

  function accessorText({ get, set }) {
    return get && set ? '[Getter/Setter]' : get ? '[Getter]' : '[Setter]';
  }

  function keyText(key) {
    if (typeof key === 'symbol') return `[${String(key)}]`;
    return PLAIN_KEY.test(key) ? key : quoted(key);
  }

  function enclosed(prefix, open, parts, close) {
    if (parts.length === 0) return `${prefix}${open}${close}`;
    const length = parts.reduce((sum, part) => sum + part.length + 2, prefix.length);
    const isShort = length <= LINE_MAX_CHARS && !parts.some((part) => part.includes('\n'));
    if (isShort) return `${prefix}${open} ${parts.join(', ')} ${close}`;
    const lines = parts.map((part) => `  ${part.replace(/\n/g, '\n  ')}`);
    return `${prefix}${open}\n${lines.join(',\n')}\n${close}`;
  }
}

function consoleFor(write, { format, inspect }) {
  let indent = '';
  const counts = new Map();
  const starts = new Map();
  const print = (fd, text, level) => write(fd, `${indent}${indent ? text.replace(/\n/g, `\n${indent}`) : text}\n`, level);
  const at = (fd, level) => (...args) => print(fd, format(args), level);
  const out = at(1, 'log');
  const err = at(2, 'error');
  const since = (label) => `${label}: ${Date.now() - (starts.get(label) ?? Date.now())}ms`;
  const group = (...args) => {
    if (args.length > 0) out(...args);
    indent += '  ';
  };
  return {
    log: out,
    info: at(1, 'info'),
    debug: at(1, 'debug'),
    table: out,
    dirxml: out,
    dir: (value) => print(1, inspect(value), 'dir'),
    error: err,
    warn: at(2, 'warning'),
    trace(...args) {
      const stack = new Error(format(args)).stack.replace(/^Error/, 'Trace').split('\n');
      print(2, stack.filter((line) => !line.includes('casemate:')).join('\n'), 'trace');
    },
    assert(condition, ...args) {
      if (!condition) err(`Assertion failed${args.length > 0 ? `: ${format(args)}` : ''}`);
    },
    count(label = 'default') {
      counts.set(label, (counts.get(label) ?? 0) + 1);
      out(`${label}: ${counts.get(label)}`);
    },
    countReset: (label = 'default') => void counts.delete(label),
    group,
    groupCollapsed: group,
    groupEnd() {
      indent = indent.slice(2);
    },
    time: (label = 'default') => void starts.set(label, Date.now()),
    timeLog: (label = 'default', ...args) => out(since(label), ...args),
    timeEnd(label = 'default') {
      out(since(label));
      starts.delete(label);
    },
  };
}
