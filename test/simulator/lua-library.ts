/** The functions of Lua 5.1 that scripts may call, as Redis offers them. One that is missing here is refused by name. */
import { compilePattern } from './lua-patterns.ts'
import {
  arithmetic,
  asFunction,
  formatGeneral,
  isLess,
  isTrue,
  LuaError,
  type LuaFunction,
  LuaTable,
  type LuaValue,
  Multi,
  spread,
  toNumber,
  toText,
  typeName,
} from './lua-values.ts'

function text(value: LuaValue): string {
  if (typeof value === 'string' || typeof value === 'number') return toText(value)
  throw new LuaError(`bad argument (string expected, got ${typeName(value)})`)
}

function table(value: LuaValue): LuaTable {
  if (value instanceof LuaTable) return value
  throw new LuaError(`bad argument (table expected, got ${typeName(value)})`)
}

/** A position in a string as `string.sub` and `string.byte` take it, from 0. */
function startOf(length: number, position: number): number {
  return position < 0 ? Math.max(0, length + position) : Math.max(0, position - 1)
}

function endOf(length: number, position: number): number {
  return position < 0 ? length + position + 1 : Math.min(length, position)
}

function find(subject: string, pattern: string, start: number): RegExpExecArray | undefined {
  const anchored = pattern.startsWith('^')
  const compiled = compilePattern(anchored ? pattern.slice(1) : pattern)
  for (let at = start; at <= subject.length; at++) {
    compiled.lastIndex = at
    const match = compiled.exec(subject)
    if (match !== null) return match
    if (anchored) return undefined
  }
  return undefined
}

function captures(match: RegExpExecArray): LuaValue[] {
  return match.length > 1 ? match.slice(1) : [match[0]]
}

function formatOne(flags: string, width: string, precision: string, letter: string, value: LuaValue): string {
  let out: string
  switch (letter) {
    case 'd':
    case 'i':
    case 'u':
      out = String(BigInt(Math.trunc(arithmetic(value))))
      break
    case 'x':
      out = BigInt(Math.trunc(arithmetic(value))).toString(16)
      break
    case 's':
      out = toText(value)
      if (precision !== '') out = out.slice(0, Number(precision))
      break
    case 'f':
      out = arithmetic(value).toFixed(precision === '' ? 6 : Number(precision))
      break
    case 'g':
      out = formatGeneral(arithmetic(value), precision === '' ? 6 : Number(precision))
      break
    case 'c':
      out = String.fromCharCode(arithmetic(value))
      break
    default:
      throw new LuaError(`string.format: %${letter} is not supported here`)
  }
  const size = Number(width === '' ? '0' : width)
  if (flags.includes('-')) return out.padEnd(size)
  if (flags.includes('0') && out.startsWith('-')) return `-${out.slice(1).padStart(size - 1, '0')}`
  return out.padStart(size, flags.includes('0') ? '0' : ' ')
}

const strings: Readonly<Record<string, LuaFunction>> = {
  len: (value) => text(value).length,
  lower: (value) => text(value).replace(/[A-Z]/g, (char) => char.toLowerCase()),
  upper: (value) => text(value).replace(/[a-z]/g, (char) => char.toUpperCase()),
  rep: (value, count) => text(value).repeat(Math.max(0, arithmetic(count))),
  reverse: (value) => [...text(value)].reverse().join(''),
  sub: (value, from, to = -1) => {
    const whole = text(value)
    return whole.slice(startOf(whole.length, arithmetic(from)), endOf(whole.length, arithmetic(to)))
  },
  byte: (value, from = 1, to = from) => {
    const whole = text(value)
    const part = whole.slice(startOf(whole.length, arithmetic(from)), endOf(whole.length, arithmetic(to)))
    return new Multi(Array.from(part, (char) => char.charCodeAt(0)))
  },
  char: (...codes) => String.fromCharCode(...codes.map(arithmetic)),
  format: (pattern, ...values) => {
    let at = 0
    return text(pattern).replace(
      /%([-+ #0]*)(\d*)(?:\.(\d+))?(.)/g,
      (_, flags: string, width: string, precision: string | undefined, letter: string) =>
        letter === '%' ? '%' : formatOne(flags, width, precision ?? '', letter, values[at++]),
    )
  },
  find: (subject, pattern, from = 1, plain = false) => {
    const whole = text(subject)
    const start = startOf(whole.length, arithmetic(from))
    if (isTrue(plain)) {
      const at = whole.indexOf(text(pattern), start)
      return at < 0 ? undefined : new Multi([at + 1, at + text(pattern).length])
    }
    const match = find(whole, text(pattern), start)
    if (match === undefined) return undefined
    return new Multi([match.index + 1, match.index + match[0].length, ...match.slice(1)])
  },
  match: (subject, pattern, from = 1) => {
    const whole = text(subject)
    const match = find(whole, text(pattern), startOf(whole.length, arithmetic(from)))
    return match === undefined ? undefined : new Multi(captures(match))
  },
  gmatch: (subject, pattern) => {
    const whole = text(subject)
    let at = 0
    return () => {
      const match = find(whole, text(pattern), at)
      if (match === undefined) return undefined
      at = match.index + Math.max(1, match[0].length)
      return new Multi(captures(match))
    }
  },
  gsub: (subject, pattern, replacement, countMax) => {
    const whole = text(subject)
    const most = countMax === undefined ? Number.POSITIVE_INFINITY : arithmetic(countMax)
    let out = ''
    let at = 0
    let count = 0
    while (count < most) {
      const match = find(whole, text(pattern), at)
      if (match === undefined) break
      count += 1
      out += whole.slice(at, match.index) + substitute(match, replacement)
      at = match.index + match[0].length
      if (match[0].length === 0) out += whole.charAt(at++)
      if (at > whole.length || pattern?.toString().startsWith('^') === true) break
    }
    return new Multi([out + whole.slice(at), count])
  },
}

function substitute(match: RegExpExecArray, replacement: LuaValue): string {
  const named = captures(match)
  let value: LuaValue
  if (typeof replacement === 'function') value = spread(replacement(...named))[0]
  else if (replacement instanceof LuaTable) value = replacement.get(named[0])
  else {
    return text(replacement).replace(/%(.)/g, (_, char: string) =>
      char === '0' ? match[0] : /\d/.test(char) ? toText(named[Number(char) - 1]) : char,
    )
  }
  return isTrue(value) ? toText(value) : match[0]
}

const tables: Readonly<Record<string, LuaFunction>> = {
  concat: (list, separator = '', from = 1, to = table(list).length) => {
    const parts: string[] = []
    for (let i = arithmetic(from); i <= arithmetic(to); i++) parts.push(text(table(list).get(i)))
    return parts.join(text(separator))
  },
  insert: (list, ...rest) => {
    const into = table(list)
    if (rest.length < 2) into.set(into.length + 1, rest[0])
    else into.list.splice(arithmetic(rest[0]) - 1, 0, rest[1])
    return new Multi([])
  },
  remove: (list, position) => {
    const from = table(list)
    if (from.length === 0) return undefined
    return from.list.splice(position === undefined ? from.length - 1 : arithmetic(position) - 1, 1)[0]
  },
  getn: (list) => table(list).length,
  sort: (list, order) => {
    const isBefore = order === undefined ? isLess : undefined
    const before = (a: LuaValue, b: LuaValue): boolean =>
      isBefore === undefined ? isTrue(spread(asFunction(order)(a, b))[0]) : isBefore(a, b)
    table(list).list.sort((a, b) => (before(a, b) ? -1 : before(b, a) ? 1 : 0))
    return new Multi([])
  },
}

const maths: Readonly<Record<string, LuaFunction>> = {
  floor: (value) => Math.floor(arithmetic(value)),
  ceil: (value) => Math.ceil(arithmetic(value)),
  abs: (value) => Math.abs(arithmetic(value)),
  max: (...values) => Math.max(...values.map(arithmetic)),
  min: (...values) => Math.min(...values.map(arithmetic)),
  fmod: (a, b) => arithmetic(a) % arithmetic(b),
  pow: (a, b) => arithmetic(a) ** arithmetic(b),
  sqrt: (value) => Math.sqrt(arithmetic(value)),
}

const STRUCT_BYTES: Readonly<Record<string, number>> = { B: 1, b: 1, H: 2, h: 2, I: 4, i: 4, L: 8, l: 8 }

/** Integers only, in either byte order; answers the values and the position behind them. */
function unpackStruct(format: LuaValue, data: LuaValue, from: LuaValue = 1): Multi {
  const bytes = Buffer.from(text(data), 'latin1')
  let at = arithmetic(from) - 1
  let isBigEndian = false
  const values: LuaValue[] = []
  for (const [, order, letter = '', digits] of text(format).matchAll(/([<>])|([A-Za-z])(\d*)/g)) {
    if (order !== undefined) {
      isBigEndian = order === '>'
      continue
    }
    const length = digits === undefined || digits === '' ? STRUCT_BYTES[letter] : Number(digits)
    if (length === undefined || STRUCT_BYTES[letter] === undefined) {
      throw new LuaError(`struct.unpack: "${letter}" is not supported here`)
    }
    if (at + length > bytes.length) throw new LuaError('data string too short')
    const isSigned = letter === letter.toLowerCase()
    if (isBigEndian) values.push(isSigned ? bytes.readIntBE(at, length) : bytes.readUIntBE(at, length))
    else values.push(isSigned ? bytes.readIntLE(at, length) : bytes.readUIntLE(at, length))
    at += length
  }
  return new Multi([...values, at + 1])
}

const ARRAY_32 = 0xdd
const RAW_32 = 0xdb

/** Lists and raw bytes with lengths of four bytes: all that scripts are sent. */
function unpackLists(data: LuaValue): LuaValue {
  const bytes = Buffer.from(text(data), 'latin1')
  let at = 0
  const read = (): LuaValue => {
    const kind = bytes[at]
    const count = bytes.readUInt32BE(at + 1)
    at += 5
    if (kind === RAW_32) {
      at += count
      if (at > bytes.length) throw new LuaError('Missing bytes in input.')
      return bytes.toString('latin1', at - count, at)
    }
    if (kind !== ARRAY_32) throw new LuaError(`cmsgpack.unpack: kind ${kind} is not supported here`)
    const list = new LuaTable()
    for (let i = 1; i <= count; i++) list.set(i, read())
    return list
  }
  return read()
}

const bits: Readonly<Record<string, LuaFunction>> = {
  band: (...values) => values.map(arithmetic).reduce((a, b) => a & b),
  bor: (...values) => values.map(arithmetic).reduce((a, b) => a | b),
  bxor: (...values) => values.map(arithmetic).reduce((a, b) => a ^ b),
  lshift: (a, b) => arithmetic(a) << arithmetic(b),
  rshift: (a, b) => (arithmetic(a) >>> arithmetic(b)) | 0,
}

function unpack(list: LuaValue, from: LuaValue = 1, to: LuaValue = table(list).length): Multi {
  const values: LuaValue[] = []
  for (let i = arithmetic(from); i <= arithmetic(to); i++) values.push(table(list).get(i))
  // Redis's Lua refuses near 8,000: "too many results to unpack".
  if (values.length > 7999) throw new LuaError('too many results to unpack')
  return new Multi(values)
}

const basics: Readonly<Record<string, LuaFunction>> = {
  tonumber: (value, base) => {
    if (base === undefined || base === 10) return toNumber(value)
    const number = Number.parseInt(text(value), arithmetic(base))
    return Number.isNaN(number) ? undefined : number
  },
  tostring: (value) => toText(value),
  type: (value) => typeName(value),
  unpack,
  select: (which, ...values) =>
    which === '#' ? values.length : new Multi(values.slice(arithmetic(which) - 1)),
  error: (reason) => {
    throw new LuaError(reason instanceof LuaTable ? toText(reason.get('err')) : toText(reason))
  },
  assert: (value, ...rest) => {
    if (!isTrue(value)) throw new LuaError(rest[0] === undefined ? 'assertion failed!' : toText(rest[0]))
    return new Multi([value, ...rest])
  },
  ipairs: (list) => {
    const next: LuaFunction = (from, at) => {
      const position = arithmetic(at) + 1
      const value = table(from).get(position)
      return value === undefined ? undefined : new Multi([position, value])
    }
    return new Multi([next, table(list), 0])
  },
  pairs: (list) => {
    const entries = table(list).entries()
    let at = 0
    const next: LuaFunction = () => {
      for (let entry = entries[at++]; entry !== undefined; entry = entries[at++]) {
        const value = table(list).get(entry[0])
        if (value !== undefined) return new Multi([entry[0], value])
      }
      return undefined
    }
    return new Multi([next, list, undefined])
  },
  next: (list) => new Multi(table(list).entries()[0] ?? [undefined]),
}

/** Everything by its full name, such as `string.sub` or `tonumber`. */
export const LUA_LIBRARY: ReadonlyMap<string, LuaFunction> = new Map([
  ...Object.entries(basics),
  ...named('string', strings),
  ...named('table', tables),
  ...named('math', maths),
  ...named('bit', bits),
  ...named('struct', { unpack: unpackStruct }),
  ...named('cmsgpack', { unpack: unpackLists }),
])

function named(room: string, functions: Readonly<Record<string, LuaFunction>>): [string, LuaFunction][] {
  return Object.entries(functions).map(([name, call]) => [`${room}.${name}`, call])
}

export { strings as STRING_METHODS }
