/**
 * Stream entry ids. A sequence number goes up to 2^64 - 1, which a double can't hold: that one value is kept by its text, and
 * all others that occur are small.
 */
import { fault } from './redis-replies.ts'

export interface StreamId {
  readonly ms: number
  readonly seq: number
  readonly text: string
}

const SEQ_MAX = 2 ** 64
const SEQ_MAX_TEXT = '18446744073709551615'

export function streamId(ms: number, seq: number): StreamId {
  const last = seq >= SEQ_MAX
  return { ms, seq: last ? SEQ_MAX : seq, text: `${ms}-${last ? SEQ_MAX_TEXT : seq}` }
}

export const ZERO_ID: StreamId = streamId(0, 0)
export const LAST_ID: StreamId = { ms: SEQ_MAX, seq: SEQ_MAX, text: `${SEQ_MAX_TEXT}-${SEQ_MAX_TEXT}` }

const INVALID = 'ERR Invalid stream ID specified as stream command argument'

/** `<ms>`, `<ms>-<seq>`, `-` and `+`. A missing sequence number is `seqDefault`. */
export function parseId(text: string, seqDefault = 0): StreamId {
  if (text === '-') return ZERO_ID
  if (text === '+') return LAST_ID
  const match = /^(\d{1,20})(?:-(\d{1,20}))?$/.exec(text)
  if (match === null) throw fault(INVALID)
  const [, ms = '0', seq] = match
  return streamId(Number(ms), seq === undefined ? seqDefault : Number(seq))
}

/** The ends of a range: `(` leaves out the id itself. */
export function parseStart(text: string): StreamId {
  return text.startsWith('(') ? nextId(parseId(text.slice(1))) : parseId(text)
}

export function parseEnd(text: string): StreamId {
  return text.startsWith('(') ? previousId(parseId(text.slice(1))) : parseId(text, SEQ_MAX)
}

export function compareIds(a: StreamId, b: StreamId): number {
  return a.ms === b.ms ? a.seq - b.seq : a.ms - b.ms
}

export function nextId(id: StreamId): StreamId {
  return id.seq >= SEQ_MAX ? streamId(id.ms + 1, 0) : streamId(id.ms, id.seq + 1)
}

function previousId(id: StreamId): StreamId {
  if (id.seq > 0) return streamId(id.ms, id.seq - 1)
  if (id.ms === 0) throw fault('ERR invalid end ID for the interval')
  return streamId(id.ms - 1, SEQ_MAX)
}

/** Index of the first item that is not before `id` in an ascending list. */
export function indexFrom(list: readonly { readonly id: StreamId }[], id: StreamId): number {
  let low = 0
  let high = list.length
  while (low < high) {
    const middle = (low + high) >> 1
    const item = list[middle]
    if (item !== undefined && compareIds(item.id, id) < 0) low = middle + 1
    else high = middle
  }
  return low
}
