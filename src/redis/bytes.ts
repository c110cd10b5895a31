/** Reads what Redis replied: Buffers, numbers and nested arrays, checked once here so that no cast is needed above. */
import { MillraceError } from '../contracts/errors.ts'

export type Reply = unknown

export function replyArray(reply: Reply): readonly Reply[] {
  if (Array.isArray(reply)) return reply
  throw unexpected('a list', reply)
}

export function replyText(reply: Reply): string {
  if (Buffer.isBuffer(reply)) return reply.toString('latin1')
  if (typeof reply === 'string') return reply
  if (typeof reply === 'number') return String(reply)
  throw unexpected('text', reply)
}

/** UTF-8 text, for keys that people choose. */
export function replyUtf8(reply: Reply): string {
  return Buffer.isBuffer(reply) ? reply.toString('utf8') : replyText(reply)
}

export function replyNumber(reply: Reply): number {
  const value = typeof reply === 'number' ? reply : Number(replyText(reply))
  if (Number.isFinite(value)) return value
  throw unexpected('a number', reply)
}

export function replyBuffer(reply: Reply): Buffer {
  if (Buffer.isBuffer(reply)) return reply
  if (typeof reply === 'string') return Buffer.from(reply)
  throw unexpected('bytes', reply)
}

export function isNothing(reply: Reply): reply is null | undefined {
  return reply === null || reply === undefined
}

function unexpected(wanted: string, reply: Reply): MillraceError {
  return new MillraceError('entry.unreadable', `Redis answered ${typeof reply} where ${wanted} was expected.`)
}

/** Orders two stream entry ids (`<ms>-<seq>`), negative when `a` is older. */
export function compareEntryIds(a: string, b: string): number {
  if (a === b) return 0
  // As many digits each: the texts compare as the numbers do.
  if (a.length === b.length && a.indexOf('-') === b.indexOf('-')) return a < b ? -1 : 1
  const [aMs, aSeq] = splitEntryId(a)
  const [bMs, bSeq] = splitEntryId(b)
  return aMs === bMs ? aSeq - bSeq : aMs - bMs
}

function splitEntryId(id: string): readonly [number, number] {
  const dash = id.indexOf('-')
  return dash < 0 ? [Number(id), 0] : [Number(id.slice(0, dash)), Number(id.slice(dash + 1))]
}

/** The next possible entry id, for exclusive lower bounds. */
export function entryIdAfter(id: string): string {
  const [ms, seq] = splitEntryId(id)
  return `${ms}-${seq + 1}`
}
