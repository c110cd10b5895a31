/**
 * Replies and errors of the in-memory Redis. Every string is a byte string, one character a byte, as in Redis itself; the
 * edges (`toBytes`, `fromBytes`) turn text and Buffers into these and back.
 */

/** `+OK` and its like. */
export class Status {
  readonly text: string

  constructor(text: string) {
    this.text = text
  }
}

export const OK: Status = new Status('OK')

export type Reply = null | number | string | Status | readonly Reply[] | RedisFault

/** An error as the server words it: `NOGROUP No such key …`. */
export class RedisFault extends Error {
  override readonly name = 'ReplyError'
}

export const SYNTAX: string = 'ERR syntax error'

export function fault(text: string): RedisFault {
  return new RedisFault(text)
}

const ASCII = /^[\x20-\x7e]*$/

/** Sources of scripts: the same long texts again and again. */
const LONG = 500
const longTexts = new Map<string, string>()

function longToBytes(text: string): string {
  const known = longTexts.get(text)
  if (known !== undefined) return known
  const bytes = Buffer.from(text, 'utf8').toString('latin1')
  if (longTexts.size < 1000) longTexts.set(text, bytes)
  return bytes
}

/** What a client sends, as bytes. */
export function toBytes(argument: string | Buffer | number): string {
  if (typeof argument === 'number') return String(argument)
  if (typeof argument === 'string') {
    if (argument.length > LONG) return longToBytes(argument)
    return ASCII.test(argument) ? argument : Buffer.from(argument, 'utf8').toString('latin1')
  }
  return argument.toString('latin1')
}

/** What a client is given: Buffers or text for byte strings. */
export function fromBytes(reply: Reply, asBuffers: boolean): unknown {
  if (typeof reply === 'string') return convert(reply, asBuffers)
  if (reply instanceof Status) return convert(reply.text, asBuffers)
  if (Array.isArray(reply)) return reply.map((each: Reply) => fromBytes(each, asBuffers))
  return reply
}

function convert(bytes: string, asBuffers: boolean): Buffer | string {
  if (asBuffers) return Buffer.from(bytes, 'latin1')
  return ASCII.test(bytes) ? bytes : Buffer.from(bytes, 'latin1').toString('utf8')
}
