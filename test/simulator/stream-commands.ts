/** Streams and consumer groups of the in-memory Redis: everything but reading. */
import { wholeNumber } from './data-commands.ts'
import type { CommandRule, Keyspace } from './keyspace.ts'
import { fault, OK, type Reply, SYNTAX } from './redis-replies.ts'
import { compareIds, parseEnd, parseId, parseStart, type StreamId, ZERO_ID } from './stream-ids.ts'
import { entryReply } from './stream-reads.ts'
import { type GroupConsumer, GroupValue, type PendingEntry, StreamValue } from './stream-value.ts'

/** With `~` and no LIMIT, Redis stops at 100 nodes of 100 entries. */
const TRIM_ROUGHLY_MAX = 10_000
const NO_SUCH_KEY = 'ERR no such key'

interface Trim {
  readonly minId: StreamId | undefined
  readonly lengthMax: number
  readonly countMax: number
}

/** `MAXLEN|MINID [=|~] threshold [LIMIT count]` from `at` on; answers where it ends. */
function parseTrim(args: readonly string[], start: number): { trim: Trim; end: number } {
  let at = start
  const strategy = (args[at++] ?? '').toUpperCase()
  let isRough = false
  if (args[at] === '~' || args[at] === '=') isRough = args[at++] === '~'
  const threshold = args[at++] ?? ''
  let countMax = isRough ? TRIM_ROUGHLY_MAX : Number.POSITIVE_INFINITY
  if ((args[at] ?? '').toUpperCase() === 'LIMIT') {
    if (!isRough) throw fault('ERR syntax error, LIMIT cannot be used without the special ~ option')
    countMax = wholeNumber(args[at + 1]) || Number.POSITIVE_INFINITY
    at += 2
  }
  if (strategy === 'MINID') return { trim: { minId: parseId(threshold), lengthMax: 0, countMax }, end: at }
  if (strategy === 'MAXLEN') {
    return { trim: { minId: undefined, lengthMax: wholeNumber(threshold), countMax }, end: at }
  }
  throw fault(SYNTAX)
}

function trimStream(stream: StreamValue, { minId, lengthMax, countMax }: Trim): number {
  return minId === undefined ? stream.trimTo(lengthMax, countMax) : stream.trimBefore(minId, countMax)
}

function addEntry(redis: Keyspace, [key = '', ...rest]: readonly string[]): Reply {
  let at = 0
  let trim: Trim | undefined
  let mayCreate = true
  for (; at < rest.length; at++) {
    const option = (rest[at] ?? '').toUpperCase()
    if (option === 'NOMKSTREAM') mayCreate = false
    else if (option === 'MAXLEN' || option === 'MINID') {
      const parsed = parseTrim(rest, at)
      trim = parsed.trim
      at = parsed.end - 1
    } else break
  }
  const [idText = '', ...fields] = rest.slice(at)
  if (fields.length === 0 || fields.length % 2 !== 0) {
    throw fault("ERR wrong number of arguments for 'xadd' command")
  }
  const dictated = idText === '*' ? redis.givenIds.get(key)?.shift() : idText
  const given = dictated === undefined ? undefined : parseNewId(dictated)
  if (given?.text === '0-0') throw fault('ERR The ID specified in XADD must be greater than 0-0')
  const known = redis.find(key, 'stream')
  if (known === undefined && !mayCreate) return null
  const stream = known ?? new StreamValue()
  const id = given === undefined ? stream.nextAutoId(redis.nowMs) : newIdOf(given, stream)
  if (compareIds(id, stream.lastId) <= 0) {
    throw fault('ERR The ID specified in XADD is equal or smaller than the target stream top item')
  }
  if (known === undefined) redis.put(key, stream)
  stream.add(id, fields)
  if (trim !== undefined) trimStream(stream, trim)
  redis.signal(key)
  return id.text
}

type NewId = StreamId & { readonly seqIsFree: boolean }

function parseNewId(text: string): NewId {
  if (text.endsWith('-*')) return { ...parseId(text.slice(0, -2)), seqIsFree: true }
  return { ...parseId(text), seqIsFree: false }
}

function newIdOf(given: NewId, stream: StreamValue): StreamId {
  if (!given.seqIsFree) return given
  return given.ms === stream.lastId.ms ? parseId(`${given.ms}-${stream.lastId.seq + 1}`) : given
}

function rangeOf(redis: Keyspace, args: readonly string[], isReversed: boolean): Reply {
  const [key = '', first = '', second = '', ...options] = args
  const [from, to] = isReversed ? [second, first] : [first, second]
  const [start, end] = [parseStart(from), parseEnd(to)]
  let countMax = Number.POSITIVE_INFINITY
  if (options.length > 0) {
    if ((options[0] ?? '').toUpperCase() !== 'COUNT' || options.length !== 2) throw fault(SYNTAX)
    countMax = wholeNumber(options[1])
  }
  const stream = redis.find(key, 'stream')
  if (stream === undefined) return []
  const found = isReversed ? stream.reversed(start, end, countMax) : stream.range(start, end, countMax)
  return found.map(entryReply)
}

function groupOf(redis: Keyspace, key: string, name: string): { stream: StreamValue; group: GroupValue } {
  const stream = redis.find(key, 'stream')
  const group = stream?.groups.get(name)
  if (stream === undefined || group === undefined) {
    throw fault(`NOGROUP No such key '${key}' or consumer group '${name}'`)
  }
  return { stream, group }
}

function pendingOf(redis: Keyspace, [key = '', name = '', ...rest]: readonly string[]): Reply {
  if (rest.length === 0) {
    const { group } = groupOf(redis, key, name)
    return summary(group)
  }
  let options = rest
  let idleMinMs = 0
  if ((options[0] ?? '').toUpperCase() === 'IDLE') {
    idleMinMs = wholeNumber(options[1])
    options = options.slice(2)
  }
  const [from = '', to = '', count, consumer] = options
  if (count === undefined || options.length > 4) throw fault(SYNTAX)
  const [start, end, countMax] = [parseStart(from), parseEnd(to), Math.max(0, wholeNumber(count))]
  const { group } = groupOf(redis, key, name)
  const now = redis.nowMs
  const found = group.pending.filter(
    (entry) =>
      compareIds(entry.id, start) >= 0 &&
      compareIds(entry.id, end) <= 0 &&
      (consumer === undefined || entry.consumer.name === consumer) &&
      (idleMinMs === 0 || now - entry.deliveredMs >= idleMinMs),
  )
  return found
    .slice(0, countMax)
    .map((entry) => [
      entry.id.text,
      entry.consumer.name,
      Math.max(0, now - entry.deliveredMs),
      entry.deliveries,
    ])
}

function summary({ pending, consumers }: GroupValue): Reply {
  const [firstEntry, lastEntry] = [pending[0], pending.at(-1)]
  if (firstEntry === undefined || lastEntry === undefined) return [0, null, null, null]
  const holders = [...consumers.values()].filter(({ pendingCount }) => pendingCount > 0)
  const rows = inNameOrder(holders).map(({ name, pendingCount }) => [name, String(pendingCount)])
  return [pending.length, firstEntry.id.text, lastEntry.id.text, rows]
}

/** Redis keeps consumers and groups in a radix tree: byte order. */
function inNameOrder<Item extends { readonly name: string }>(items: readonly Item[]): Item[] {
  return [...items].sort((a, b) => (a.name < b.name ? -1 : 1))
}

interface ClaimOptions {
  readonly ids: readonly StreamId[]
  readonly idleMinMs: number
  deliveredMs: number
  deliveries: number | undefined
  isForced: boolean
  isBare: boolean
}

function parseClaim(redis: Keyspace, [idle = '', ...rest]: readonly string[]): ClaimOptions {
  const first = rest.findIndex((text) => !/^\d+(-\d+)?$/.test(text))
  const ids = (first < 0 ? rest : rest.slice(0, first)).map((text) => parseId(text))
  const options: ClaimOptions = {
    ids,
    idleMinMs: Math.max(0, wholeNumber(idle)),
    deliveredMs: redis.nowMs,
    deliveries: undefined,
    isForced: false,
    isBare: false,
  }
  for (let i = first < 0 ? rest.length : first; i < rest.length; i++) {
    const option = (rest[i] ?? '').toUpperCase()
    if (option === 'FORCE') options.isForced = true
    else if (option === 'JUSTID') options.isBare = true
    else if (option === 'IDLE') options.deliveredMs = redis.nowMs - wholeNumber(rest[++i])
    else if (option === 'TIME') options.deliveredMs = wholeNumber(rest[++i])
    else if (option === 'RETRYCOUNT') options.deliveries = wholeNumber(rest[++i])
    else throw fault(`ERR Unrecognized XCLAIM option '${rest[i]}'`)
  }
  return options
}

function claim(redis: Keyspace, [key = '', name = '', me = '', ...rest]: readonly string[]): Reply {
  const { stream, group } = groupOf(redis, key, name)
  const options = parseClaim(redis, rest)
  let owner: GroupConsumer | undefined
  const claimed: Reply[] = []
  for (const id of options.ids) {
    const body = stream.find(id)
    let entry = group.find(id)
    if (body === undefined) {
      if (entry !== undefined) group.drop(id)
      continue
    }
    if (entry === undefined && !options.isForced) continue
    if (entry !== undefined && !isIdle(redis, entry, options)) continue
    owner ??= group.consumer(me, redis.nowMs)
    if (entry === undefined) entry = group.give(id, owner, redis.nowMs)
    else if (entry.consumer !== owner) group.move(entry, owner)
    entry.deliveredMs = options.deliveredMs
    if (options.deliveries !== undefined) entry.deliveries = options.deliveries
    else if (!options.isBare) entry.deliveries += 1
    claimed.push(options.isBare ? id.text : entryReply(body))
  }
  return claimed
}

function isIdle(redis: Keyspace, entry: PendingEntry, { idleMinMs }: ClaimOptions): boolean {
  return idleMinMs === 0 || redis.nowMs - entry.deliveredMs >= idleMinMs
}

function createGroup(redis: Keyspace, [key = '', name = '', id = '', ...options]: readonly string[]): Reply {
  let mayCreate = false
  let entriesRead: number | undefined
  for (let i = 0; i < options.length; i++) {
    const option = (options[i] ?? '').toUpperCase()
    if (option === 'MKSTREAM') mayCreate = true
    else if (option === 'ENTRIESREAD') entriesRead = wholeNumber(options[++i])
    else throw fault(SYNTAX)
  }
  const known = redis.find(key, 'stream')
  if (known === undefined && !mayCreate) throw missingKey()
  const startId = id === '$' ? (known?.lastId ?? ZERO_ID) : parseId(id)
  const stream = known ?? redis.put(key, new StreamValue())
  if (stream.groups.has(name)) throw fault('BUSYGROUP Consumer Group name already exists')
  stream.groups.set(name, new GroupValue(startId, entriesRead === -1 ? undefined : entriesRead))
  return OK
}

function missingKey() {
  return fault(
    'ERR The XGROUP subcommand requires the key to exist. Note that for CREATE you may want to use the MKSTREAM option to create an empty stream automatically.',
  )
}

function groupCommand(redis: Keyspace, [action = '', ...rest]: readonly string[]): Reply {
  if (action.toUpperCase() === 'CREATE') return createGroup(redis, rest)
  const [key = '', name = '', third = '', ...options] = rest
  const stream = redis.find(key, 'stream')
  if (stream === undefined) throw missingKey()
  const group = stream.groups.get(name)
  if (action.toUpperCase() === 'DESTROY') {
    if (group === undefined) return 0
    stream.groups.delete(name)
    redis.signal(key)
    return 1
  }
  if (group === undefined) {
    throw fault(`NOGROUP No such consumer group '${name}' for key name '${key}'`)
  }
  switch (action.toUpperCase()) {
    case 'SETID':
      if (options.length > 0) throw fault(SYNTAX)
      group.lastId = third === '$' ? stream.lastId : parseId(third)
      group.entriesRead = undefined
      return OK
    case 'CREATECONSUMER': {
      const isNew = !group.consumers.has(third)
      group.consumer(third, redis.nowMs)
      return isNew ? 1 : 0
    }
    case 'DELCONSUMER':
      return group.deleteConsumer(third)
    default:
      throw fault(SYNTAX)
  }
}

function info(redis: Keyspace, [what = '', key = '', name = '']: readonly string[]): Reply {
  const stream = redis.find(key, 'stream')
  if (stream === undefined) throw fault(NO_SUCH_KEY)
  switch (what.toUpperCase()) {
    case 'STREAM':
      return streamInfo(stream)
    case 'GROUPS':
      return inNameOrder([...stream.groups].map(([each, group]) => ({ name: each, group }))).map((row) =>
        groupInfo(stream, row.name, row.group),
      )
    case 'CONSUMERS': {
      const group = stream.groups.get(name)
      if (group === undefined) {
        throw fault(`NOGROUP No such consumer group '${name}' for key name '${key}'`)
      }
      return inNameOrder([...group.consumers.values()]).map((consumer) => [
        ...['name', consumer.name, 'pending', consumer.pendingCount],
        ...['idle', Math.max(0, redis.nowMs - consumer.seenMs)],
      ])
    }
    default:
      throw fault(SYNTAX)
  }
}

function streamInfo(stream: StreamValue): Reply {
  const { entries } = stream
  const [firstEntry, lastEntry] = [entries[0], entries.at(-1)]
  return [
    ...['length', entries.length, 'radix-tree-keys', entries.length, 'radix-tree-nodes', entries.length + 1],
    ...['last-generated-id', stream.lastId.text, 'max-deleted-entry-id', stream.maxDeletedId.text],
    ...['entries-added', stream.entriesAdded, 'recorded-first-entry-id', stream.firstId.text],
    ...['groups', stream.groups.size],
    'first-entry',
    firstEntry === undefined ? null : entryReply(firstEntry),
    'last-entry',
    lastEntry === undefined ? null : entryReply(lastEntry),
  ]
}

function groupInfo(stream: StreamValue, name: string, group: GroupValue): Reply {
  return [
    ...['name', name, 'consumers', group.consumers.size, 'pending', group.pending.length],
    ...['last-delivered-id', group.lastId.text, 'entries-read', group.entriesRead ?? null],
    'lag',
    lagOf(stream, group),
  ]
}

function lagOf(stream: StreamValue, group: GroupValue): number | null {
  if (stream.entriesAdded === 0) return 0
  const isSure = group.entriesRead !== undefined && !stream.hasTombstones(group.lastId)
  const read = isSure ? group.entriesRead : stream.distanceTo(group.lastId)
  return read === undefined ? null : stream.entriesAdded - read
}

function setId(redis: Keyspace, [key = '', idText = '', ...options]: readonly string[]): Reply {
  if (options.length > 0)
    throw new Error('The in-memory Redis does not know the options of XSETID; teach it.')
  const id = parseId(idText)
  const stream = redis.find(key, 'stream')
  if (stream === undefined) throw fault(NO_SUCH_KEY)
  const top = stream.entries.at(-1)
  if (top !== undefined && compareIds(id, top.id) < 0) {
    throw fault('ERR The ID specified in XSETID is smaller than the target stream top item')
  }
  stream.lastId = id
  return OK
}

export const STREAM_COMMANDS: Readonly<Record<string, CommandRule>> = {
  XADD: { min: 4, writes: true, grows: true, run: ({ redis, args }) => addEntry(redis, args) },
  XLEN: {
    min: 1,
    max: 1,
    run: ({ redis, args: [key = ''] }) => redis.find(key, 'stream')?.entries.length ?? 0,
  },
  XRANGE: { min: 3, run: ({ redis, args }) => rangeOf(redis, args, false) },
  XREVRANGE: { min: 3, run: ({ redis, args }) => rangeOf(redis, args, true) },
  XDEL: {
    min: 2,
    writes: true,
    run: ({ redis, args: [key = '', ...ids] }) => {
      const parsed = ids.map((id) => parseId(id))
      const stream = redis.find(key, 'stream')
      return stream === undefined ? 0 : parsed.filter((id) => stream.delete(id)).length
    },
  },
  XTRIM: {
    min: 3,
    writes: true,
    run: ({ redis, args: [key = '', ...rest] }) => {
      const { trim, end } = parseTrim(rest, 0)
      if (end !== rest.length) throw fault(SYNTAX)
      const stream = redis.find(key, 'stream')
      return stream === undefined ? 0 : trimStream(stream, trim)
    },
  },
  XACK: {
    min: 3,
    writes: true,
    run: ({ redis, args: [key = '', name = '', ...ids] }) => {
      const group = redis.find(key, 'stream')?.groups.get(name)
      if (group === undefined) return 0
      return ids.map((id) => parseId(id)).filter((id) => group.drop(id)).length
    },
  },
  XPENDING: { min: 2, run: ({ redis, args }) => pendingOf(redis, args) },
  XCLAIM: { min: 5, writes: true, run: ({ redis, args }) => claim(redis, args) },
  XGROUP: { min: 3, writes: true, run: ({ redis, args }) => groupCommand(redis, args) },
  XINFO: { min: 2, run: ({ redis, args }) => info(redis, args) },
  XSETID: { min: 2, writes: true, run: ({ redis, args }) => setId(redis, args) },
}
