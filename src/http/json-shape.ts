/**
 * How much a JSON body would cost to parse, seen before it is parsed: what takes time and memory is the number of values, not
 * of bytes. 8 MiB of `[` held the event loop for 1.6 s and 600 MB (Bun 1.4.5, 2 cores); a body of the same size that is
 * commands takes a tenth.
 *
 * An array or object counts four, any other value one. Short bodies can't hold too many and are not looked at. Of a long one every 61st
 * byte is, and all of them only where those hint at too many; the first byte looked at is another each time, so that none can be
 * laid out around it.
 */
import { MillraceError } from '../contracts/errors.ts'

const COMMA = 44
const QUOTE = 34
const BACKSLASH = 92
const BRACKET = 91
const BRACE = 123

const NESTED_COST = 4
const JSON_COST_MAX = 1024 ** 2
/** A body of fewer bytes can't cost more. */
const BYTES_MIN = JSON_COST_MAX / NESTED_COST
const STRIDE = 61

let phase = 0

/** @throws MillraceError `command.too-large` */
export function checkJsonShape(body: string | Uint8Array): void {
  if (body.length < BYTES_MIN) return
  phase = (phase + 23) % STRIDE
  if (2 * STRIDE * costOfSample(body, phase) < JSON_COST_MAX) return
  if (costOf(body) <= JSON_COST_MAX) return
  throw new MillraceError(
    'command.too-large',
    'The body holds too many values: send fewer commands at once, or nest less in them.',
  )
}

function codeAt(body: string | Uint8Array, at: number): number {
  return typeof body === 'string' ? body.charCodeAt(at) : (body[at] ?? 0)
}

function costOfCode(code: number): number {
  if (code === COMMA) return 1
  return code === BRACKET || code === BRACE ? NESTED_COST : 0
}

function costOfSample(body: string | Uint8Array, from: number): number {
  let cost = 0
  for (let at = from; at < body.length; at += STRIDE) cost += costOfCode(codeAt(body, at))
  return cost
}

/** Of all that stands outside of texts; stops where it is too much. */
function costOf(body: string | Uint8Array): number {
  let cost = 0
  let isText = false
  for (let at = 0; at < body.length && cost <= JSON_COST_MAX; at++) {
    const code = codeAt(body, at)
    if (code === QUOTE) isText = !isText
    else if (!isText) cost += costOfCode(code)
    else if (code === BACKSLASH) at += 1
  }
  return cost
}
