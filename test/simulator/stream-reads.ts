/** XREAD and XREADGROUP of the in-memory Redis: at once, or blocked until a stream has something new. */
import { wholeNumber } from './data-commands.ts'
import type { BLOCKED, CommandRule, Keyspace, ServerClient, Waiter } from './keyspace.ts'
import { fault, type Reply, SYNTAX } from './redis-replies.ts'
import { compareIds, LAST_ID, nextId, parseId, type StreamId } from './stream-ids.ts'
import type { GroupValue, StreamEntry, StreamValue } from './stream-value.ts'

interface ReadRequest {
  readonly countMax: number
  readonly blockMs: number | undefined
  readonly group: Waiter['group']
  readonly streams: readonly { readonly key: string; readonly id: string }[]
}

function parseRead(args: readonly string[], isGroup: boolean): ReadRequest {
  let countMax = Number.POSITIVE_INFINITY
  let blockMs: number | undefined
  let group: { name: string; consumer: string; noAck: boolean } | undefined
  let noAck = false
  for (let i = 0; i < args.length; i++) {
    const option = (args[i] ?? '').toUpperCase()
    if (option === 'COUNT') countMax = wholeNumber(args[++i]) || Number.POSITIVE_INFINITY
    else if (option === 'BLOCK') blockMs = wholeNumber(args[++i])
    else if (option === 'NOACK' && isGroup) noAck = true
    else if (option === 'GROUP' && isGroup) {
      group = { name: args[++i] ?? '', consumer: args[++i] ?? '', noAck: false }
    } else if (option === 'STREAMS') {
      const rest = args.slice(i + 1)
      const half = rest.length / 2
      if (half < 1 || !Number.isInteger(half)) {
        const command = isGroup ? 'xreadgroup' : 'xread'
        throw fault(
          `ERR Unbalanced '${command}' list of streams: for each stream key an ID or '${isGroup ? '>' : '$'}' must be specified.`,
        )
      }
      const streams = rest.slice(0, half).map((key, at) => ({ key, id: rest[half + at] ?? '' }))
      return { countMax, blockMs, group: group && { ...group, noAck }, streams }
    } else throw fault(SYNTAX)
  }
  throw fault(SYNTAX)
}

export function entryReply({ id, fields }: StreamEntry): Reply {
  return [id.text, fields]
}

/** Hands entries to a consumer and notes them as pending. */
function deliver(
  redis: Keyspace,
  stream: StreamValue,
  group: GroupValue,
  reader: NonNullable<Waiter['group']>,
  countMax: number,
): Reply {
  const consumer = group.consumer(reader.consumer, redis.nowMs)
  const entries = stream.range(nextId(group.lastId), LAST_ID, countMax)
  for (const { id } of entries) {
    if (compareIds(id, group.lastId) > 0) {
      if (group.entriesRead !== undefined && !stream.hasTombstones(id)) group.entriesRead += 1
      else if (stream.entriesAdded > 0) group.entriesRead = stream.distanceTo(id)
      group.lastId = id
    }
    if (!reader.noAck) group.give(id, consumer, redis.nowMs)
  }
  return entries.map(entryReply)
}

/** The consumer's own pending entries behind an id; a body that is gone is nil. */
function history(
  redis: Keyspace,
  stream: StreamValue,
  group: GroupValue,
  reader: NonNullable<Waiter['group']>,
  after: StreamId,
  countMax: number,
): Reply {
  const consumer = group.consumer(reader.consumer, redis.nowMs)
  const own = group.pending.filter((entry) => entry.consumer === consumer && compareIds(entry.id, after) > 0)
  return own.slice(0, countMax).map((entry) => {
    const found = stream.find(entry.id)
    if (found === undefined) return [entry.id.text, null]
    entry.deliveredMs = redis.nowMs
    entry.deliveries += 1
    return entryReply(found)
  })
}

function hasNew(stream: StreamValue, after: StreamId): boolean {
  const last = stream.entries.at(-1)
  return last !== undefined && compareIds(last.id, after) > 0
}

function read(
  redis: Keyspace,
  client: ServerClient | undefined,
  request: ReadRequest,
): Reply | typeof BLOCKED {
  const { group: reader, countMax, streams, blockMs } = request
  const after = new Map<string, StreamId>()
  const groups = new Map<string, GroupValue>()
  for (const { key, id } of streams) {
    const stream = redis.find(key, 'stream')
    if (reader !== undefined) {
      const group = stream?.groups.get(reader.name)
      if (group === undefined) {
        throw fault(
          `NOGROUP No such key '${key}' or consumer group '${reader.name}' in XREADGROUP with GROUP option`,
        )
      }
      groups.set(key, group)
    }
    after.set(key, idOf(id, stream, reader !== undefined))
  }
  const found: Reply[] = []
  for (const [key, from] of after) {
    const stream = redis.find(key, 'stream')
    if (stream === undefined) continue
    const group = groups.get(key)
    if (group !== undefined && reader !== undefined) {
      if (from !== LAST_ID) found.push([key, history(redis, stream, group, reader, from, countMax)])
      else if (hasNew(stream, group.lastId))
        found.push([key, deliver(redis, stream, group, reader, countMax)])
    } else if (hasNew(stream, from))
      found.push([key, stream.range(nextId(from), LAST_ID, countMax).map(entryReply)])
  }
  if (found.length > 0) return found
  if (blockMs === undefined || client === undefined) return null
  return redis.block({ client, after, group: reader, countMax, blockMs })
}

function idOf(id: string, stream: StreamValue | undefined, isGroup: boolean): StreamId {
  if (id === '$') {
    if (isGroup) {
      throw fault(
        'ERR The $ ID is meaningless in the context of XREADGROUP: you want to read the history of this consumer by specifying a proper ID, or use the > ID to get new messages. The $ ID would just return an empty result set.',
      )
    }
    return stream?.lastId ?? parseId('0-0')
  }
  if (id === '>') {
    if (isGroup) return LAST_ID
    throw fault(
      'ERR The > ID can be specified only when calling XREADGROUP using the GROUP <group> <consumer> option.',
    )
  }
  return parseId(id)
}

/** What a blocked read is answered because of `key`; undefined lets it wait on. */
export function serveWaiter(redis: Keyspace, waiter: Waiter, key: string): Reply | undefined {
  const stream = redis.find(key, 'stream')
  if (stream === undefined) return undefined
  const { group: reader, countMax } = waiter
  if (reader === undefined) {
    const after = waiter.after.get(key)
    if (after === undefined || compareIds(stream.lastId, after) <= 0) return undefined
    return [[key, stream.range(nextId(after), LAST_ID, countMax).map(entryReply)]]
  }
  const group = stream.groups.get(reader.name)
  if (group === undefined) {
    return fault('NOGROUP the consumer group this client was blocked on no longer exists')
  }
  // Also for an entry that was deleted since: Redis then answers an empty list.
  if (compareIds(stream.lastId, group.lastId) <= 0) return undefined
  return [[key, deliver(redis, stream, group, reader, countMax)]]
}

export const READ_COMMANDS: Readonly<Record<string, CommandRule>> = {
  XREAD: {
    min: 3,
    run: ({ redis, args, client }) => read(redis, client, parseRead(args, false)),
  },
  XREADGROUP: {
    min: 6,
    writes: true,
    run: ({ redis, args, client }) => {
      const request = parseRead(args, true)
      if (request.group === undefined) throw fault('ERR Missing GROUP option for XREADGROUP')
      return read(redis, client, request)
    },
  },
}
