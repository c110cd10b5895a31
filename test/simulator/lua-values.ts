/**
 * Values of Lua 5.1 as the compiled scripts see them: nil is undefined, strings are byte strings (one character a byte),
 * tables are `LuaTable`, and a call that gives other than one value gives a `Multi`.
 */

export type LuaFunction = (...args: LuaValue[]) => LuaValue | Multi
export type LuaValue = undefined | boolean | number | string | LuaTable | LuaFunction

/** Several values, or none, of one call. */
export class Multi {
  readonly values: LuaValue[]

  constructor(values: LuaValue[]) {
    this.values = values
  }
}

/** What a script raised: `error`, `redis.call` of a command that failed, or a fault of its own. */
export class LuaError extends Error {}

/** Positions 1 to n stand in `list`; all other keys in `hash`, in the order in which they were first set. */
export class LuaTable {
  readonly list: LuaValue[]
  readonly hash: Map<LuaValue, LuaValue> = new Map()

  constructor(list: LuaValue[] = []) {
    this.list = list
  }

  get length(): number {
    return this.list.length
  }

  get(key: LuaValue): LuaValue {
    if (typeof key === 'number') {
      const value = this.list[key - 1]
      if (value !== undefined) return value
    }
    return this.hash.get(key)
  }

  set(key: LuaValue, value: LuaValue): void {
    if (typeof key === 'number' && Number.isInteger(key) && key >= 1 && key <= this.list.length + 1) {
      this.#setPosition(key, value)
      return
    }
    if (key === undefined) throw new LuaError('table index is nil')
    if (value === undefined) this.hash.delete(key)
    else this.hash.set(key, value)
  }

  #setPosition(key: number, value: LuaValue): void {
    const { list, hash } = this
    if (value !== undefined) {
      list[key - 1] = value
      for (let next = hash.get(list.length + 1); next !== undefined; next = hash.get(list.length + 1)) {
        hash.delete(list.length + 1)
        list.push(next)
      }
    } else if (key <= list.length) {
      for (let i = list.length; i > key; i--) hash.set(i, list[i - 1])
      list.length = key - 1
    }
  }

  /** Keys and values at this moment; `next` lets a loop delete what it has met. */
  entries(): [LuaValue, LuaValue][] {
    return [...this.list.map((value, i): [LuaValue, LuaValue] => [i + 1, value]), ...this.hash]
  }
}

export function first(value: LuaValue | Multi): LuaValue {
  return value instanceof Multi ? value.values[0] : value
}

export function spread(value: LuaValue | Multi): LuaValue[] {
  return value instanceof Multi ? value.values : [value]
}

export function isTrue(value: LuaValue): boolean {
  return value !== undefined && value !== false
}

export function typeName(value: LuaValue): string {
  if (value === undefined) return 'nil'
  return value instanceof LuaTable ? 'table' : typeof value
}

/** As `printf("%.<precision>g")` writes it. */
export function formatGeneral(value: number, precision: number): string {
  if (Number.isInteger(value) && Math.abs(value) < 10 ** Math.min(precision, 15)) {
    return Object.is(value, -0) ? '-0' : String(value)
  }
  if (!Number.isFinite(value)) return Number.isNaN(value) ? 'nan' : value < 0 ? '-inf' : 'inf'
  const [mantissa = '', exponent = '0'] = value.toExponential(precision - 1).split('e')
  const power = Number(exponent)
  if (power < -4 || power >= precision) {
    const sign = power < 0 ? '-' : '+'
    return `${trimZeros(mantissa)}e${sign}${String(Math.abs(power)).padStart(2, '0')}`
  }
  return trimZeros(value.toFixed(Math.max(0, precision - 1 - power)))
}

function trimZeros(digits: string): string {
  return digits.includes('.') ? digits.replace(/\.?0+$/, '') : digits
}

export function toText(value: LuaValue): string {
  if (typeof value === 'string') return value
  if (typeof value === 'number') return formatGeneral(value, 14)
  if (typeof value === 'boolean') return String(value)
  return value === undefined ? 'nil' : `${typeName(value)}: 0x0`
}

/** As `tonumber` does; undefined when it is no number. */
export function toNumber(value: LuaValue): number | undefined {
  if (typeof value === 'number') return value
  if (typeof value !== 'string') return undefined
  const text = value.trim()
  if (!/^[+-]?(?:0[xX][0-9a-fA-F]+|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)$/.test(text)) return undefined
  return text.startsWith('-0x') || text.startsWith('-0X') ? -Number(text.slice(1)) : Number(text)
}

export function arithmetic(value: LuaValue): number {
  if (typeof value === 'number') return value
  const number = toNumber(value)
  if (number === undefined) throw new LuaError(`attempt to perform arithmetic on a ${typeName(value)} value`)
  return number
}

export function concat(a: LuaValue, b: LuaValue): string {
  for (const value of [a, b]) {
    if (typeof value !== 'string' && typeof value !== 'number') {
      throw new LuaError(`attempt to concatenate a ${typeName(value)} value`)
    }
  }
  return toText(a) + toText(b)
}

export function isLess(a: LuaValue, b: LuaValue): boolean {
  if (typeof a === 'number' && typeof b === 'number') return a < b
  if (typeof a === 'string' && typeof b === 'string') return a < b
  throw new LuaError(`attempt to compare ${typeName(a)} with ${typeName(b)}`)
}

export function isLessOrEqual(a: LuaValue, b: LuaValue): boolean {
  if (typeof a === 'number' && typeof b === 'number') return a <= b
  return !isLess(b, a)
}

export function lengthOf(value: LuaValue): number {
  if (typeof value === 'string' || value instanceof LuaTable) return value.length
  throw new LuaError(`attempt to get length of a ${typeName(value)} value`)
}

export function indexOf(base: LuaValue, key: LuaValue): LuaValue {
  if (base instanceof LuaTable) return base.get(key)
  throw new LuaError(`attempt to index a ${typeName(base)} value`)
}

export function setIndex(base: LuaValue, key: LuaValue, value: LuaValue): void {
  if (!(base instanceof LuaTable)) throw new LuaError(`attempt to index a ${typeName(base)} value`)
  base.set(key, value)
}

/** A table from its positions and its named fields. */
export function makeTable(list: LuaValue[], fields: readonly (readonly [LuaValue, LuaValue])[]): LuaTable {
  const end = list.indexOf(undefined)
  const table = new LuaTable(end < 0 ? list : list.slice(0, end))
  if (end >= 0) for (let i = end + 1; i < list.length; i++) table.set(i + 1, list[i])
  for (const [key, value] of fields) table.set(key, value)
  return table
}

export function asFunction(value: LuaValue): LuaFunction {
  if (typeof value === 'function') return value
  throw new LuaError(`attempt to call a ${typeName(value)} value`)
}
