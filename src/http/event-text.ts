/**
 * Events as server-sent events (WHATWG HTML, 9.2): their text, made once for all who are sent the same one, and the few blocks
 * that a tail says of itself.
 */
import type { LoggedEvent } from '../redis/event-log.ts'
import { type EventOrigin, FoldedEvent } from '../redis/event-log.ts'
import type { TailItem } from '../tails/tail.ts'
import { jsonText } from './answers.ts'

/** Where the events of a tail come from, by partition. */
export type EventOrigins = readonly EventOrigin[]

const texts = new WeakMap<LoggedEvent, string>()

/** A block with the cursor that goes on after it. */
export function itemText(item: TailItem, origins: EventOrigins): string {
  const id = `id: ${item.cursor}\n`
  if (item.kind === 'event') return id + eventText(item, origins)
  const { partition, reason, after } = item
  return id + block('gap', { reason, partition, after, detail: GAP_DETAILS[reason] })
}

const GAP_DETAILS = {
  trimmed: 'Events after this place are no longer kept. The next ones are the oldest that there are.',
  lost: 'Redis lost events at this place. The next ones are what came after.',
  slow: 'Too little was read from this connection, so it is closed. Come back with this id: no event is missing.',
} as const

/** The last block for a reader that takes nothing. */
export function slowText(cursor: string): string {
  return `id: ${cursor}\n${block('gap', { reason: 'slow', detail: GAP_DETAILS.slow })}`
}

/** A block without data is not dispatched, but its id is kept (9.2.6): a reader that has seen no event yet knows its place. */
export function placeText(cursor: string, comment: string): string {
  return `: ${comment}\nid: ${cursor}\n\n`
}

export function retryText(retryMs: number): string {
  return `retry: ${Math.round(retryMs)}\n`
}

function eventText(item: TailItem & { kind: 'event' }, origins: EventOrigins): string {
  const { event, partition } = item
  const known = texts.get(event)
  if (known !== undefined) return known
  const position = `${item.entry}/${item.index}`
  const text =
    readableText(event, position, origins[partition]) ?? block('unreadable', { partition, position })
  texts.set(event, text)
  return text
}

/** Undefined for an event whose header or payload this version can't read. */
function readableText(
  { header, token }: LoggedEvent,
  position: string,
  origin: EventOrigin | undefined,
): string | undefined {
  if (header === undefined || origin === undefined) return undefined
  try {
    const { type, version, key, payload, atMs, commandId } = new FoldedEvent(origin, position, token, header)
    const { partition } = origin
    const emittedAt = new Date(atMs).toISOString()
    return block(type, { type, version, key, payload, commandId, emittedAt, partition, position })
  } catch {
    return undefined
  }
}

/** JSON has no line breaks outside of its strings, and escapes those inside. */
function block(event: string, data: unknown): string {
  return `event: ${event}\ndata: ${jsonText(data)}\n\n`
}
