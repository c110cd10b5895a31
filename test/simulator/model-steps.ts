/**
 * Random steps for the comparison of the in-memory Redis with a real server: the product's own stores, and bare commands where
 * a script would not reach every rule. Each step does the same on both sides; entries are named by their rank.
 */
import fc from 'fast-check'
import { appendKeyed, appendPlain, cancelCommand, readStatus } from '../../src/redis/command-log.ts'
import {
  ensureGroup,
  forgetGone,
  listOwnPending,
  markRunning,
  readLevels,
  readNew,
  readPending,
  releaseEntries,
  removeConsumer,
  sampleConsumers,
  takeOver,
  writeBeat,
} from '../../src/redis/consumer-group.ts'
import { discardDead, findDead, readDead, redriveDead, trimDead } from '../../src/redis/dead-letter-stream.ts'
import { type PartitionKeys, partitionKeys } from '../../src/redis/keys.ts'
import { releaseLease, renewLease, takeLease } from '../../src/redis/lease-store.ts'
import { leasedMembership, sharedMembership } from '../../src/redis/membership.ts'
import { appendOnce, readOutbox, trimOutbox } from '../../src/redis/outbox.ts'
import {
  dropFinished,
  promoteDue,
  sweepRecords,
  trimCommands,
  trimEvents,
} from '../../src/redis/partition-care.ts'
import {
  askPartition,
  chargeSuspects,
  forgetMember,
  readHeld,
  releasePartition,
  sampleLeases,
  takePartition,
} from '../../src/redis/partition-lease.ts'
import {
  fireSchedule,
  readSchedule,
  registerSchedule,
  setSchedulePaused,
} from '../../src/redis/schedule-store.ts'
import {
  type EntryRef,
  type Failure,
  type SettleRequest,
  type Success,
  settle,
} from '../../src/redis/settlements.ts'
import { readPartitionOverview } from '../../src/redis/stream-overview.ts'
import { readProgress } from '../../src/redis/stream-progress.ts'
import { commitViews, openReader, readViews, stopReader } from '../../src/redis/view-store.ts'
import { lyingEntries, lyingEntry } from '../support/lying-entries.ts'
import type { ComparedSide } from './compared-side.ts'

export interface Step {
  readonly name: string
  run(side: ComparedSide): Promise<unknown>
}

const shared = partitionKeys('compared', 0)
const ordered = partitionKeys('compared', 1, 'key')
const FAR_MS = 10_000_000
const workers = ['w1', 'w2', 'w3'] as const
const blobs = ['a', 'bb', 'c\u0000\u00ff'].map((text) => Buffer.from(text, 'latin1'))

const worker = fc.constantFrom(...workers)
const blob = fc.constantFrom(...blobs)
const which = fc.nat({ max: 30 })
const count = fc.integer({ min: 1, max: 4 })
const delay = fc.constantFrom(0, FAR_MS)
const source = fc.constantFrom('commands', 'ready') as fc.Arbitrary<'commands' | 'ready'>

function step<Value>(
  name: string,
  values: fc.Arbitrary<Value>,
  run: (side: ComparedSide, value: Value) => Promise<unknown>,
): fc.Arbitrary<Step> {
  return values.map((value) => ({
    name: `${name} ${fc.stringify(value)}`,
    run: (side) => run(side, value),
  }))
}

function keyOf(keys: PartitionKeys, from: 'commands' | 'ready'): string {
  return from === 'commands' ? keys.commands : keys.ready
}

function refOf(
  side: ComparedSide,
  keys: PartitionKeys,
  from: 'commands' | 'ready',
  at: number,
  level = 0,
): EntryRef {
  const key = keyOf(keys, from)
  const entryId = side.idOf(key, at)
  return {
    source: from,
    entryId,
    token: from === 'commands' ? `e${entryId}` : side.tokenOf(key, at),
    level,
    turn: at % 3,
  }
}

const refs = fc.array(fc.tuple(source, which, fc.constantFrom(0, 1)), { maxLength: 3 })
const success = fc.record({
  ref: fc.tuple(source, which, fc.constantFrom(0, 1)),
  events: fc.array(blob, { maxLength: 2 }),
  followUps: fc.array(
    fc.record({ target: fc.constantFrom('', 'compared.1'), delayMs: fc.constantFrom(-1, 0, FAR_MS), blob }),
    { maxLength: 2 },
  ),
  record: fc.constantFrom<'' | Buffer>('', Buffer.from('Dx')),
  appends: fc.constantFrom(undefined, 0, 1, 2),
})
const failure = fc.record({
  ref: fc.tuple(source, which, fc.constantFrom(0, 1)),
  move: fc.constantFrom('retry', 'dead') as fc.Arbitrary<'retry' | 'dead'>,
  delayMs: delay,
  blob,
})
const request = fc.record({
  plain: refs,
  successes: fc.array(success, { maxLength: 2 }),
  failures: fc.array(failure, { maxLength: 2 }),
})

type Wanted = typeof request extends fc.Arbitrary<infer Value> ? Value : never

function requestOf(
  side: ComparedSide,
  keys: PartitionKeys,
  { plain, successes, failures }: Wanted,
): SettleRequest {
  const aggregate = keys.aggregate('thing', 'one')
  return {
    plain: plain.map(([, at]) => refOf(side, keys, 'commands', at)),
    successes: successes.map(
      ({ ref, events, followUps, record, appends }): Success => ({
        ref: refOf(side, keys, ...ref),
        ...{ events, followUps, record },
        append:
          appends === undefined
            ? undefined
            : { key: aggregate, expectedVersion: appends, expectedToken: 'none', events: events.slice(0, 1) },
      }),
    ),
    failures: failures.map(
      ({ ref, ...rest }): Failure => ({
        ...rest,
        ref: refOf(side, keys, ...ref),
        record: Buffer.from('r'),
      }),
    ),
  }
}

const commandSteps = [
  step('append', fc.array(blob, { maxLength: 3 }), ({ link }, list) =>
    appendPlain(link, shared, lyingEntries(list)),
  ),
  step('append ordered', fc.array(blob, { maxLength: 3 }), ({ link }, list) =>
    appendPlain(link, ordered, lyingEntries(list)),
  ),
  step(
    'append keyed',
    fc.tuple(
      fc.array(
        fc.tuple(fc.nat({ max: 4 }), fc.nat({ max: 1 }), fc.constantFrom(undefined, 0, FAR_MS), blob),
        {
          minLength: 1,
          maxLength: 3,
        },
      ),
      fc.boolean(),
    ),
    ({ link }, [items, atomic]) => {
      const commands = items.map(([key, body, delayMs, each]) => ({
        entry: lyingEntry(each),
        mark:
          key === 0 ? undefined : { digest: Buffer.alloc(16, key), fingerprint: Buffer.alloc(8, 65 + body) },
        deliver: delayMs === undefined ? undefined : { delayMs },
      }))
      const limits = { windowMs: 1e14, recordsMax: 128 }
      return appendKeyed(link, shared, commands, limits, 0, atomic)
    },
  ),
  step('status', fc.tuple(source, which), (side, [from, at]) =>
    readStatus(side.link, shared, refOf(side, shared, from, at).token),
  ),
  step('status of x', count, ({ link }, number) => readStatus(link, shared, `x${number}`)),
  step('cancel', fc.tuple(source, which), (side, [from, at]) =>
    cancelCommand(side.link, shared, refOf(side, shared, from, at).token, Buffer.from('c')),
  ),
  step('promote', count, ({ link }, most) => promoteDue(link, shared, most)),
  step('relay', count, async ({ link }, most) => {
    const entries = await readOutbox(link, shared, most, '')
    const last = entries.at(-1)
    const answer = await appendOnce(link, shared, 'compared.1', entries)
    if (last !== undefined && most > 2) await trimOutbox(link, shared, last.id)
    return answer
  }),
]

const groupSteps = [
  step('ensure group', fc.constant(0), ({ link }) => ensureGroup(link, shared)),
  step('read', fc.tuple(worker, count), ({ link }, [me, most]) =>
    readNew(link, sharedMembership(shared, me), most, 1),
  ),
  step('own pending', fc.tuple(worker, source, which), async (side, [me, from, at]) => {
    const membership = sharedMembership(shared, me)
    const ids = await listOwnPending(
      side.link,
      membership,
      from,
      at % 2 === 0 ? '' : side.idOf(keyOf(shared, from), at),
      3,
    )
    const entries = await readPending(side.link, shared, from, ids)
    return [
      entries,
      await readLevels(
        side.link,
        shared,
        entries.map(({ token }) => token),
      ),
    ]
  }),
  step('settle', fc.tuple(worker, request), (side, [me, wanted]) =>
    settle(side.link, sharedMembership(shared, me), requestOf(side, shared, wanted)),
  ),
  step(
    'take over',
    fc.tuple(fc.constantFrom(...workers, 'free'), worker, fc.constantFrom('', '1:0'), count),
    ({ link }, [dead, me, beat, most]) => takeOver(link, shared, { consumer: dead, beat }, me, most),
  ),
  step('release', fc.tuple(worker, refs, fc.boolean()), (side, [me, list, leaving]) =>
    releaseEntries(
      side.link,
      shared,
      me,
      list.map(([from, at]) => refOf(side, shared, from, at)),
      leaving,
    ),
  ),
  step('beat', fc.tuple(worker, fc.constantFrom('1:0', '2:0')), ({ link }, [me, value]) =>
    writeBeat(link, [shared.beats, ordered.beats], me, value),
  ),
  step('sample', fc.constant(0), ({ link }) => sampleConsumers(link, shared)),
  step('remove consumer', fc.tuple(worker, fc.constantFrom('', '1:0')), ({ link }, [dead, beat]) =>
    removeConsumer(link, shared, dead, beat),
  ),
  step('mark running', fc.tuple(worker, refs), (side, [me, list]) =>
    markRunning(
      side.link,
      shared,
      me,
      list.map(([from, at]) => refOf(side, shared, from, at).token),
    ),
  ),
  step('forget gone', fc.tuple(source, which), (side, [from, at]) =>
    forgetGone(side.link, sharedMembership(shared, 'w1'), from, [side.idOf(keyOf(shared, from), at)]),
  ),
  step('overview', fc.constant(0), async ({ link }) => {
    const { oldestAgeMs, consumers, ...rest } = await readPartitionOverview(link, shared)
    return [oldestAgeMs < 100_000, consumers.map(({ name, pending }) => [name, pending]), rest]
  }),
]

const careSteps = [
  step('trim commands', fc.constantFrom(shared, ordered), ({ link }, keys) => trimCommands(link, keys)),
  step('trim events', fc.constantFrom(1000, 1e12), async ({ link }, eventsBytesMax) => {
    const { events, slowest } = await trimEvents(link, shared, {
      ...{ eventsMs: 1e9, eventsBytesMax: eventsBytesMax < 1e9 ? 1 : eventsBytesMax },
      ...{ resultsMs: 1, deadLettersMs: 1 },
    })
    return [events, slowest?.name, slowest?.position, slowest?.behindMs === undefined]
  }),
  step('sweep records', fc.constantFrom(-FAR_MS, FAR_MS), ({ link }, keepMs) =>
    sweepRecords(link, shared, keepMs, 3),
  ),
  step('trim dead', fc.constantFrom(-FAR_MS, FAR_MS), ({ link }, keepMs) =>
    trimDead(link, shared, keepMs, 2),
  ),
  step('read dead', fc.tuple(count, fc.boolean()), ({ link }, [countMax, newestFirst]) =>
    readDead(link, shared, { from: '-', to: '+', countMax, newestFirst }),
  ),
  step(
    'find, redrive or discard',
    fc.tuple(which, fc.constantFrom('find', 'redrive', 'discard')),
    (side, [at, how]) => {
      const entryId = side.idOf(shared.dead, at)
      const token = side.tokenOf(shared.dead, at)
      if (how === 'find') return findDead(side.link, shared, token)
      if (how === 'discard') return discardDead(side.link, shared, [{ entryId, token }])
      const bytes = Buffer.from('new')
      const record = Buffer.from('r')
      const replacesBytes = at % 2 === 0 ? undefined : 1
      return redriveDead(side.link, shared, [{ entryId, token, bytes, replacesBytes, record }])
    },
  ),
]

const lossSteps = [
  step(
    'restore ids',
    fc.tuple(which, which, which, fc.constantFrom('', '3')),
    (side, [at, ready, events, counter]) => {
      const { commands, ready: copies, events: log, counter: number, floors } = shared
      const beyond = (key: string, rank: number): string =>
        rank % 3 === 0 ? '' : rank % 3 === 1 ? side.idOf(key, rank) : `${side.idOf(key, rank)}1`
      const seen = [beyond(commands, at), beyond(copies, ready), beyond(log, events), counter]
      return side.link.evaluate('restore-ids', [commands, copies, log, number, floors], seen)
    },
  ),
  step('restore outbox', which, (side, at) =>
    side.link.evaluate(
      'restore-outbox',
      [shared.outbox],
      [`${side.idOf(shared.outbox, at)}${at % 2 === 0 ? '' : '1'}`],
    ),
  ),
  step('drop finished', fc.tuple(source, which, count), (side, [from, at, most]) =>
    dropFinished(
      side.link,
      shared,
      from,
      at % 2 === 0 ? undefined : side.idOf(keyOf(shared, from), at),
      most,
    ),
  ),
  step('progress', fc.constantFrom(shared, ordered), ({ link }, keys) => readProgress(link, keys)),
  step('take lease', fc.tuple(worker, fc.nat({ max: 2 })), async ({ link }, [owner, how]) => {
    const me = { owner, takeoverMs: 1000 }
    const seen = await takeLease(link, 'one', me, undefined)
    return how === 0 ? seen : takeLease(link, 'one', me, how === 1 ? seen : { ...seen, beat: 'another' })
  }),
  step(
    'renew or release lease',
    fc.tuple(worker, fc.boolean(), fc.nat({ max: 1 })),
    async ({ link }, [owner, renews, off]) => {
      const { epoch } = await takeLease(link, 'one', { owner, takeoverMs: 1000 }, undefined)
      const hold = { owner, epoch: epoch + off }
      return renews ? renewLease(link, 'one', hold) : releaseLease(link, 'one', hold)
    },
  ),
]

const viewSteps = [
  step('open reader', fc.constant(0), ({ link }) => openReader(link, shared, 'r@1')),
  step(
    'commit views',
    fc.tuple(which, which, fc.array(fc.tuple(fc.constantFrom('k1', 'k2'), fc.boolean()), { maxLength: 2 })),
    (side, [from, to, views]) =>
      commitViews(side.link, shared, {
        reader: 'r@1',
        expected: from % 3 === 0 ? '0-0' : side.idOf(shared.events, from),
        checkpoint: side.idOf(shared.events, to),
        changes: {
          written: views.map(([key, isNew]) => ({ key, isNew, blob: Buffer.from(key) })),
          deleted: to % 4 === 0 ? ['k1'] : [],
          skipped: to % 5 === 0 ? [{ position: 'p', error: 'e', blob: Buffer.from('b') }] : [],
        },
      }),
  ),
  step('stop reader', which, (side, at) =>
    stopReader(side.link, shared, 'r@1', side.idOf(shared.events, at), {
      position: 'p',
      error: 'e',
      atMs: 1,
    }),
  ),
  step('read views', fc.constant(0), ({ link }) => readViews(link, shared, 'r@1', ['k1', 'k2'])),
]

const spec = { name: 'tick', keys: shared }
const scheduleSteps = [
  step(
    'register',
    fc.tuple(fc.constantFrom('s1', 's2'), fc.constantFrom('t1', 't2')),
    ({ link }, [each, timetable]) => registerSchedule(link, { ...spec, spec: each, timetable }),
  ),
  step('pause', fc.boolean(), ({ link }, paused) => setSchedulePaused(link, 'tick', shared, paused)),
  step(
    'fire',
    fc.tuple(fc.constantFrom(-FAR_MS, 0, FAR_MS), fc.constantFrom('', 'b'), fc.boolean(), fc.boolean()),
    async ({ link }, [ahead, body, forbids, isNow]) => {
      const state = await readSchedule(link, shared, 'tick')
      const watermarkMs = isNow ? undefined : (state.watermarkMs ?? 0)
      return fireSchedule(link, spec, {
        ...{ epoch: state.epoch, watermarkMs, missed: { count: 2, firstMs: 1, lastMs: 2 } },
        tickMs: (state.watermarkMs ?? 0) + 1 + ahead,
        blob: body === '' ? undefined : Buffer.from(body),
        overlap: forbids ? 'forbid' : 'allow',
      })
    },
  ),
]

/** The lease as it stands. */
async function leaseOf({ link }: ComparedSide) {
  const { leases } = await sampleLeases(link, [ordered])
  const lease = leases[0]
  if (lease === undefined) throw new Error('a sample without its lease')
  return lease
}

async function membershipOf(side: ComparedSide, me: string) {
  return leasedMembership(ordered, me, Number((await leaseOf(side)).epoch))
}

const leaseSteps = [
  step(
    'take partition',
    fc.tuple(worker, fc.constantFrom('', '1:0'), fc.nat({ max: 5 })),
    async (side, [me, beat, stale]) => {
      const seen = await leaseOf(side)
      const epoch = stale === 0 ? '7' : seen.epoch
      return takePartition(side.link, ordered, ordered.beats, me, { ...seen, epoch, beat })
    },
  ),
  step('ask for partition', worker, async (side, me) =>
    askPartition(side.link, ordered, me, await leaseOf(side)),
  ),
  step('release partition', worker, async (side, me) =>
    releasePartition(side.link, await membershipOf(side, me)),
  ),
  step('charge', fc.tuple(worker, which), async (side, [dead, at]) => {
    const levels = new Map([[refOf(side, ordered, 'commands', at).token, 2]])
    return chargeSuspects(side.link, await membershipOf(side, 'w1'), dead, levels)
  }),
  step('forget member', fc.tuple(worker, fc.constantFrom('', '1:0')), ({ link }, [dead, beat]) =>
    forgetMember(link, ordered.beats, dead, beat),
  ),
  step('read ordered', fc.tuple(worker, count), async (side, [me, most]) =>
    readNew(side.link, await membershipOf(side, me), most, 1),
  ),
  step('settle ordered', fc.tuple(worker, request), async (side, [me, wanted]) =>
    settle(side.link, await membershipOf(side, me), requestOf(side, ordered, wanted)),
  ),
  step('held', fc.constant(0), async ({ link }) => [...(await readHeld(link, ordered))].length),
]

/** A bare command. */
function bare(name: string, words: fc.Arbitrary<readonly string[]>): fc.Arbitrary<Step> {
  return words.map((list) => ({
    name: `${name} ${list.join(' ')}`,
    run: async ({ link }) => await link.client.callBuffer(name, [...list]),
  }))
}

const PLAIN = 'plain-stream'
const explicit = fc
  .tuple(fc.integer({ min: 1, max: 6 }), fc.integer({ min: 0, max: 3 }))
  .map(([ms, seq]) => `${ms}-${seq}`)
const edge = fc.oneof(
  explicit,
  explicit.map((id) => `(${id}`),
  fc.constantFrom('-', '+', '3'),
)
const group = fc.constantFrom('g1', 'g2')

const bareSteps = [
  bare(
    'XADD',
    fc.tuple(explicit).map(([id]) => [PLAIN, id, 'f', 'v']),
  ),
  bare(
    'XADD',
    fc
      .tuple(fc.integer({ min: 1, max: 4 }), explicit)
      .map(([max, id]) => [PLAIN, 'MAXLEN', '=', `${max}`, id, 'f', 'v']),
  ),
  bare(
    'XDEL',
    fc.tuple(explicit, explicit).map(([a, b]) => [PLAIN, a, b]),
  ),
  bare(
    'XTRIM',
    fc.tuple(explicit, fc.constantFrom('=', '~')).map(([id, how]) => [PLAIN, 'MINID', how, id]),
  ),
  bare(
    'XTRIM',
    fc.tuple(explicit, count).map(([id, most]) => [PLAIN, 'MINID', '~', id, 'LIMIT', `${most}`]),
  ),
  bare(
    'XRANGE',
    fc.tuple(edge, edge, count).map(([a, b, most]) => [PLAIN, a, b, 'COUNT', `${most}`]),
  ),
  bare(
    'XREVRANGE',
    fc.tuple(edge, edge).map(([a, b]) => [PLAIN, a, b]),
  ),
  bare('XLEN', fc.constant([PLAIN])),
  bare(
    'XSETID',
    explicit.map((id) => [PLAIN, id]),
  ),
  bare(
    'XREAD',
    fc.tuple(explicit, count).map(([id, most]) => ['COUNT', `${most}`, 'STREAMS', PLAIN, id]),
  ),
  bare(
    'XGROUP',
    fc
      .tuple(group, fc.oneof(explicit, fc.constantFrom('0', '$')))
      .map(([g, id]) => ['CREATE', PLAIN, g, id, 'MKSTREAM']),
  ),
  bare(
    'XGROUP',
    fc.tuple(group, explicit).map(([g, id]) => ['SETID', PLAIN, g, id]),
  ),
  bare(
    'XGROUP',
    group.map((g) => ['DESTROY', PLAIN, g]),
  ),
  bare(
    'XGROUP',
    fc
      .tuple(fc.constantFrom('CREATECONSUMER', 'DELCONSUMER'), group, worker)
      .map(([how, g, c]) => [how, PLAIN, g, c]),
  ),
  bare(
    'XREADGROUP',
    fc
      .tuple(group, worker, count, fc.constantFrom('>', '>', '0', '2-1'))
      .map(([g, c, most, id]) => ['GROUP', g, c, 'COUNT', `${most}`, 'STREAMS', PLAIN, id]),
  ),
  bare(
    'XREADGROUP',
    fc.tuple(group, worker).map(([g, c]) => ['GROUP', g, c, 'NOACK', 'STREAMS', PLAIN, '>']),
  ),
  bare(
    'XACK',
    fc.tuple(group, explicit, explicit).map(([g, a, b]) => [PLAIN, g, a, b]),
  ),
  bare(
    'XPENDING',
    group.map((g) => [PLAIN, g]),
  ),
  bare(
    'XCLAIM',
    fc
      .tuple(group, worker, fc.constantFrom('0', '100000'), explicit, fc.subarray(['FORCE', 'JUSTID']))
      .map(([g, c, idle, id, more]) => [PLAIN, g, c, idle, id, ...more]),
  ),
  bare(
    'XCLAIM',
    fc
      .tuple(group, worker, explicit, explicit)
      .map(([g, c, a, b]) => [PLAIN, g, c, '0', a, b, 'RETRYCOUNT', '5', 'FORCE', 'JUSTID']),
  ),
  bare('DEL', fc.constant([PLAIN])),
]

/** Every kind of step, each kind as likely as another of its family. */
export const steps: fc.Arbitrary<Step> = fc.oneof(
  { weight: 4, arbitrary: fc.oneof(...commandSteps) },
  { weight: 6, arbitrary: fc.oneof(...groupSteps) },
  { weight: 2, arbitrary: fc.oneof(...careSteps) },
  { weight: 2, arbitrary: fc.oneof(...viewSteps) },
  { weight: 2, arbitrary: fc.oneof(...scheduleSteps) },
  { weight: 4, arbitrary: fc.oneof(...leaseSteps) },
  { weight: 3, arbitrary: fc.oneof(...lossSteps) },
)
export const bareCommands: fc.Arbitrary<Step> = fc.oneof(...bareSteps)
