/**
 * Lua patterns as regular expressions: the same classes, quantifiers, sets, captures and anchors. `%b`, `%f` and position
 * captures have no counterpart and are refused by name.
 */
import { LuaError } from './lua-values.ts'

const CLASSES: Readonly<Record<string, string>> = {
  a: 'A-Za-z',
  c: '\\x00-\\x1f\\x7f',
  d: '0-9',
  l: 'a-z',
  p: '!-\\/:-@\\[-`{-~',
  s: ' \\t\\n\\v\\f\\r',
  u: 'A-Z',
  w: 'A-Za-z0-9',
  x: 'A-Fa-f0-9',
}
const CACHE_MAX = 1000
const cache = new Map<string, RegExp>()

/** The pattern as a regular expression that matches at `lastIndex` and nowhere else. */
export function compilePattern(pattern: string): RegExp {
  const known = cache.get(pattern)
  if (known !== undefined) return known
  const compiled = new RegExp(translate(pattern), 'y')
  if (cache.size < CACHE_MAX) cache.set(pattern, compiled)
  return compiled
}

function translate(pattern: string): string {
  let out = ''
  let at = 0
  while (at < pattern.length) {
    const char = pattern.charAt(at)
    if (char === '(' || char === ')') {
      if (char === '(' && pattern.charAt(at + 1) === ')') {
        throw new LuaError(`the pattern "${pattern}" captures a position, which is not supported here`)
      }
      out += char
      at += 1
      continue
    }
    if (char === '$' && at === pattern.length - 1) {
      out += '$'
      break
    }
    const { text, end } = item(pattern, at)
    at = end
    const quantifier = pattern.charAt(at)
    if (quantifier !== '' && '*+-?'.includes(quantifier)) {
      out += text + (quantifier === '-' ? '*?' : quantifier)
      at += 1
    } else out += text
  }
  return out
}

/** One class, set or character. */
function item(pattern: string, at: number): { text: string; end: number } {
  const char = pattern.charAt(at)
  if (char === '.') return { text: '[\\s\\S]', end: at + 1 }
  if (char === '[') return set(pattern, at)
  if (char !== '%') return { text: escaped(char), end: at + 1 }
  const letter = pattern.charAt(at + 1)
  if (/[1-9]/.test(letter)) return { text: `\\${letter}`, end: at + 2 }
  return { text: classOf(pattern, letter, false), end: at + 2 }
}

function set(pattern: string, start: number): { text: string; end: number } {
  let at = start + 1
  let text = '['
  if (pattern.charAt(at) === '^') {
    text += '^'
    at += 1
  }
  for (let isFirst = true; isFirst || pattern.charAt(at) !== ']'; isFirst = false) {
    if (at >= pattern.length) throw new LuaError('malformed pattern (missing "]")')
    const char = pattern.charAt(at)
    if (char === '%') {
      text += classOf(pattern, pattern.charAt(at + 1), true)
      at += 2
    } else if (pattern.charAt(at + 1) === '-' && pattern.charAt(at + 2) !== ']') {
      text += `${escaped(char)}-${escaped(pattern.charAt(at + 2))}`
      at += 3
    } else {
      text += escaped(char)
      at += 1
    }
  }
  return { text: `${text}]`, end: at + 1 }
}

function classOf(pattern: string, letter: string, insideSet: boolean): string {
  if (letter === 'b' || letter === 'f') {
    throw new LuaError(`the pattern "${pattern}" uses %${letter}, which is not supported here`)
  }
  const members = CLASSES[letter.toLowerCase()]
  if (members === undefined || !/[A-Za-z]/.test(letter)) return escaped(letter)
  const isComplement = letter !== letter.toLowerCase()
  if (!insideSet) return `[${isComplement ? '^' : ''}${members}]`
  if (isComplement) {
    throw new LuaError(`the pattern "${pattern}" has %${letter} in a set, which is not supported here`)
  }
  return members
}

function escaped(char: string): string {
  return /[\\^$.*+?()[\]{}|/-]/.test(char) ? `\\${char}` : char
}
