/**
 * The whole keyspace. Nobody else builds a key.
 *
 * Everything of partition p of stream s carries the hash tag `{s.p}`, so one script can touch all of it, on one Redis or
 * in one slot of a Cluster.
 */

import type { Ordering } from '../contracts/stream.ts'
import { NO_TENANT, type Tenant } from '../contracts/tenant.ts'

/** Exactly one consumer group reads the commands of a partition: this one, unless the stream is ordered by key. */
export const GROUP = 'workers'

/** The group of an ordered partition carries the epoch of its lease: who lost the lease has no group any more. */
export function orderedGroup(epoch: number): string {
  return `o${epoch}`
}

/** Entries that a draining worker handed back wait under this consumer name; every worker polls it. */
export const FREE_CONSUMER = 'free'

export interface PartitionKeys {
  readonly stream: string
  readonly partition: number
  /** stream · commands as accepted; entry: `-` → blob */
  readonly commands: string
  /**
   * stream · retries, delayed, scheduled and redriven commands, read before `commands`; entry: token → blob.
   * With ordering by key it is `commands` itself: there these count as new arrivals.
   */
  readonly ready: string
  /** stream · events; one entry per settlement: (token, blob) pairs */
  readonly events: string
  /** stream · dead letters; entry: token → blob */
  readonly dead: string
  /** hash · token → state of commands that are not simply waiting or done */
  readonly records: string
  /** zset · token by the time its record became terminal (Redis ms) */
  readonly recordTimes: string
  /** zset · token by due time (Redis ms) */
  readonly due: string
  /** hash · token → blob of what waits in `due` */
  readonly dueBodies: string
  /** stream · commands bound for other partitions: t target, p previous id for that target, d delay, b blob */
  readonly outbox: string
  /** hash · target → last id addressed to it */
  readonly outboxLast: string
  /** hash · source → last outbox id taken over from it */
  readonly watermarks: string
  /** hash · consumer → heartbeat */
  readonly beats: string
  /** hash · `<projection>@<version>` → last event entry read */
  readonly readers: string
  /** hash · `<projection>@<version>` → why it stopped (msgpack); gone with its next commit */
  readonly stops: string
  /** hash · what was trimmed or dropped: `commands`, `events` (entry ids), `records` (ms), `counter` (x tokens); `lost`: ranges of ids */
  readonly floors: string
  /** hash · token → crash level */
  readonly crashes: string
  /** hash · of an ordered partition: owner, epoch, wanted (who asks for it), charge (whose suspects are not yet charged) */
  readonly lease: string
  /** hash · of an ordered partition: entry id → `<due ms>:<turn>:<trail>` of a command that is retried in place */
  readonly held: string
  /** hash · `<tenant>` → commands that wait, `<tenant>/b` → bytes of their entries; `!` when they have to be counted again */
  readonly tenantLoads: string
  /** string · counter behind `x` tokens */
  readonly counter: string
  /** set · tokens of the suspect group that this consumer is running */
  running(consumer: string): string
  /** stream · events of one aggregate; entry id `<version>-0`: token → blob. A tenant's stands as `<tenant>/` before the name. */
  aggregate(name: string, id: string, tenant?: Tenant): string
  /** hash · view key (`view-keys.ts`) → blob, of one projection version */
  views(projection: string): string
  /** zset, all scores 0 · view keys in lexical order */
  viewKeys(projection: string): string
  /** stream · events that a fold with `skip-and-record` could not take */
  skipped(projection: string): string
  /** channel · commits of one projection version in this partition */
  commits(projection: string): string
  /**
   * hash · of one schedule: epoch, spec, timetable, watermark, paused, run, runs, fired, missed, missed-ranges, overlapped,
   * overlapped-ranges, seen, beat, past
   */
  schedule(name: string): string
}

const PREFIX = 'mr:'
const cache = new Map<string, PartitionKeys>()
const CACHE_MAX = 10_000

/**
 * The keys of one partition. `stream` is a checked name; equal arguments give the same object. Only who reads ready
 * commands, or makes commands ready, needs to say how the stream is ordered.
 */
export function partitionKeys(stream: string, partition: number, ordering: Ordering = 'none'): PartitionKeys {
  const tag = `${stream}.${partition}`
  const known = cache.get(`${ordering} ${tag}`)
  if (known !== undefined) return known
  const base = `${PREFIX}{${tag}}:`
  const keys: PartitionKeys = {
    stream,
    partition,
    commands: `${base}c`,
    ready: ordering === 'key' ? `${base}c` : `${base}r`,
    events: `${base}e`,
    dead: `${base}d`,
    records: `${base}st`,
    recordTimes: `${base}st:t`,
    due: `${base}due`,
    dueBodies: `${base}due:b`,
    outbox: `${base}out`,
    outboxLast: `${base}out:last`,
    watermarks: `${base}wm`,
    beats: `${base}beats`,
    readers: `${base}readers`,
    stops: `${base}stops`,
    floors: `${base}floor`,
    crashes: `${base}crash`,
    lease: `${base}lease`,
    held: `${base}held`,
    tenantLoads: `${base}tw`,
    counter: `${base}x`,
    running: (consumer) => `${base}running:${consumer}`,
    aggregate: (name, id, tenant = NO_TENANT) =>
      tenant === NO_TENANT ? `${base}a:${name}:${id}` : `${base}a:${tenant}/${name}:${id}`,
    views: (projection) => `${base}v:${projection}`,
    viewKeys: (projection) => `${base}vk:${projection}`,
    skipped: (projection) => `${base}skip:${projection}`,
    commits: (projection) => `${base}vc:${projection}`,
    schedule: (name) => `${base}cron:${name}`,
  }
  if (cache.size < CACHE_MAX) cache.set(`${ordering} ${tag}`, keys)
  return keys
}

/** hash · partitions, created */
export function streamMetaKey(stream: string): string {
  return `${PREFIX}stream:${stream}`
}

/** channel · a process hears its own pings here, and so knows that it hears the rest */
export function pingChannel(processId: string): string {
  return `${PREFIX}ping:${processId}`
}

/** hash · schedule → `<stream>.<partition>` it lives in */
export const SCHEDULE_HOMES_KEY: string = `${PREFIX}schedules`

/** hash · of one lease: owner ('' free), epoch, beat, takeover (ms) */
export function leaseKey(name: string): string {
  return `${PREFIX}lease:${name}`
}

/** hash · id of an API key → record (JSON, no secret in it) */
export const API_KEYS_KEY: string = `${PREFIX}{keys}:k`
/** string · another one with every change of an API key */
export const API_KEYS_REVISION_KEY: string = `${PREFIX}{keys}:rev`
/** hash · id of an API key → when it was last used (ms), coarsely */
export const API_KEYS_USED_KEY: string = `${PREFIX}{keys}:used`

export interface LimitKeys {
  /** hash · of a bucket: level, at; of a window: used; per holder `<tokens> <until µs>` */
  readonly state: string
  /** list · of a window: `<slot> <uses>`, oldest first */
  readonly log: string
}

/** Of one count of one rate limit. `digest` is plain text that no client chooses; both keys expire when nothing is counted. */
export function limitKeys(digest: string): LimitKeys {
  const base = `${PREFIX}{l.${digest}}:`
  return { state: `${base}s`, log: `${base}u` }
}

/** hash · secret behind command ids, keyspace version */
export const FLEET_META_KEY: string = `${PREFIX}meta`

/** Slots that idempotency records are spread over, and buckets inside a slot. */
const IDEMPOTENCY_SLOTS = 64
const IDEMPOTENCY_BUCKETS = 1024

/** hash · digest → fingerprint + token; one bucket of one window. `digest` has 16 bytes. */
export function idempotencyKey(digest: Buffer, window: number): string {
  const slot = digest.readUInt8(0) % IDEMPOTENCY_SLOTS
  const bucket = digest.readUInt16BE(1) % IDEMPOTENCY_BUCKETS
  return `${PREFIX}{i.${slot}}:${window}:${bucket}`
}

/** string · number of records in one slot and window */
export function idempotencyCountKey(digest: Buffer, window: number): string {
  return `${PREFIX}{i.${digest.readUInt8(0) % IDEMPOTENCY_SLOTS}}:${window}:n`
}
