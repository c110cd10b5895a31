/**
 * Random operations on one partition that tenants share, with the real scripts and without a worker; and a count of what waits
 * that shares no code with the scripts that keep it.
 */
import { z } from 'zod'
import { idempotencyMark } from '../../src/commands/idempotency.ts'
import { toRedrive } from '../../src/dead-letters/dead-letter-moves.ts'
import { defineCommand, defineEvent } from '../../src/index.ts'
import { NONE_MISSED } from '../../src/policies/catch-up.ts'
import type { CommandIds } from '../../src/redis/command-id.ts'
import { appendKeyed, cancelCommand, type NewCommand } from '../../src/redis/command-log.ts'
import type { RedisLink } from '../../src/redis/connection.ts'
import {
  ensureGroup,
  type ReadEntry,
  readNew,
  releaseEntries,
  takeOver,
} from '../../src/redis/consumer-group.ts'
import { discardDead, readDead, redriveDead } from '../../src/redis/dead-letter-stream.ts'
import { decodeEntry, encodeEntry } from '../../src/redis/entry-codec.ts'
import { EntrySlab } from '../../src/redis/entry-slab.ts'
import { FREE_CONSUMER, type PartitionKeys, partitionKeys } from '../../src/redis/keys.ts'
import { leasedMembership, type Membership, sharedMembership } from '../../src/redis/membership.ts'
import { appendOnce, readOutbox, trimOutbox } from '../../src/redis/outbox.ts'
import { appendOwned } from '../../src/redis/owned-append.ts'
import { dropFinished, promoteDue, trimCommands } from '../../src/redis/partition-care.ts'
import { membersKey, takePartition } from '../../src/redis/partition-lease.ts'
import { packPayload } from '../../src/redis/payload-codec.ts'
import { fireSchedule } from '../../src/redis/schedule-store.ts'
import { isPlain, type SettleRequest, settle } from '../../src/redis/settlements.ts'
import { readTenantLoads } from '../../src/redis/tenant-loads.ts'
import { SYSTEM_CLOCK } from '../../src/runtime/clock.ts'
import { CommandRun, type RunScope } from '../../src/runtime/command-run.ts'
import { toDecided } from '../../src/runtime/decisions.ts'
import { OrderedCommand } from '../../src/runtime/ordered-command.ts'
import type { Decided } from '../../src/runtime/settler.ts'
import type { Chance } from '../simulator/chance.ts'

const STREAM = 'model'
const TENANTS = ['', 'acme', 'zeta', 'omega']
const step = defineCommand({
  type: 'step.take',
  stream: STREAM,
  payload: z.object({ key: z.string(), text: z.string() }),
  key: (payload) => payload.key,
})
const taken = defineEvent({ type: 'step.taken', payload: z.object({ n: z.number() }) })
export const QUOTA = { countMax: 8, bytesMax: 1800 }
const LIMITS = { windowMs: 3_600_000, recordsMax: 10_000, tenantQuota: QUOTA }

interface Hand {
  readonly run: CommandRun
  readonly membership: Membership
}

export type Loads = Map<string, string>

export class LoadsModel {
  readonly #link: RedisLink
  readonly #reader: RedisLink
  readonly #chance: Chance
  readonly #ids: CommandIds
  readonly #isOrdered: boolean
  readonly #slab = new EntrySlab()
  readonly here: PartitionKeys
  readonly there: PartitionKeys
  #membership: Membership
  #hands: Hand[] = []
  readonly #sent: { readonly request: SettleRequest; readonly membership: Membership }[] = []
  readonly #known: { readonly token: string; readonly tenant: string }[] = []
  /** What was done, for the report of a failure. */
  readonly log: string[] = []

  constructor(link: RedisLink, reader: RedisLink, ids: CommandIds, chance: Chance, isOrdered: boolean) {
    this.#link = link
    this.#reader = reader
    this.#ids = ids
    this.#chance = chance
    this.#isOrdered = isOrdered
    const ordering = isOrdered ? 'key' : 'none'
    this.here = partitionKeys(STREAM, 0, ordering)
    this.there = partitionKeys(STREAM, 1, ordering)
    this.#membership = sharedMembership(this.here, 'a')
  }

  async start(): Promise<void> {
    if (this.#isOrdered) await this.#take()
    else await ensureGroup(this.#link, this.here)
  }

  async step(): Promise<void> {
    const steps: readonly (readonly [number, string, () => Promise<unknown>])[] = [
      [5, 'append', () => this.#append()],
      [3, 'append with keys', () => this.#appendKeyed()],
      [6, 'read', () => this.#read()],
      [6, 'settle', () => this.#settle()],
      [2, 'settle again', () => this.#settleAgain()],
      [2, 'take over', () => (this.#isOrdered ? this.#take() : this.#takeOver())],
      [1, 'release', () => this.#release()],
      [3, 'promote', () => promoteDue(this.#link, this.here, 10)],
      [2, 'cancel', () => this.#cancel()],
      [2, 'redrive', () => this.#redrive()],
      [1, 'discard', () => this.#discard()],
      [2, 'relay', () => this.#relay()],
      [1, 'fire', () => this.#fire()],
      [1, 'trim', () => this.#trim()],
    ]
    let draw = this.#chance.whole(
      1,
      steps.reduce((sum, [weight]) => sum + weight, 0),
    )
    for (const [weight, name, act] of steps) {
      draw -= weight
      if (draw > 0) continue
      this.log.push(name)
      await act()
      return
    }
  }

  /** As the scripts keep it. */
  async kept(keys: PartitionKeys): Promise<Loads> {
    const loads = await readTenantLoads(this.#link, keys)
    return new Map(loads.map(({ tenant, count, bytes }) => [tenant, `${count} ${bytes}`]))
  }

  /** As it is. */
  async counted(keys: PartitionKeys): Promise<Loads> {
    const { client } = this.#link
    const blobs: Buffer[] = Object.values(await client.hgetallBuffer(keys.dueBodies))
    for (const key of new Set([keys.commands, keys.ready])) {
      if ((await client.exists(key)) === 0) continue
      const open = new Set<string>()
      let last = '0-0'
      for (const info of (await client.xinfo('GROUPS', key)) as unknown[][]) {
        const name = String(info[info.indexOf('name') + 1])
        last = String(info[info.indexOf('last-delivered-id') + 1])
        const rows = (await client.xpending(key, name, '-', '+', 10_000)) as [string][]
        for (const [id] of rows) open.add(id)
      }
      const [lastMs = 0, lastSeq = 0] = last.split('-').map(Number)
      for (const [id, fields] of await client.xrangeBuffer(key, '-', '+')) {
        const [ms = 0, seq = 0] = id.toString().split('-').map(Number)
        const isNew = ms > lastMs || (ms === lastMs && seq > lastSeq)
        if ((isNew || open.has(id.toString())) && fields[1] !== undefined) blobs.push(fields[1])
      }
    }
    const sums = new Map<string, { count: number; bytes: number }>()
    for (const blob of blobs) {
      const { tenant } = decodeEntry(blob)
      if (tenant === '') continue
      const sum = sums.get(tenant) ?? { count: 0, bytes: 0 }
      sums.set(tenant, { count: sum.count + 1, bytes: sum.bytes + blob.length })
    }
    return new Map([...sums].map(([tenant, { count, bytes }]) => [tenant, `${count} ${bytes}`]))
  }

  // ── letting in ──

  #some(most: number): NewCommand[] {
    return Array.from({ length: this.#chance.whole(1, most) }, () => {
      const tenant = this.#chance.pick(TENANTS)
      const key = `k${this.#chance.whole(0, 3)}`
      const payload = { key, text: 'x'.repeat(this.#chance.whole(0, 300)) }
      const header = {
        type: step.type,
        version: 1,
        atMs: 1,
        key,
        trace: undefined,
        tickMs: undefined,
        trail: undefined,
      }
      return {
        entry: this.#slab.write({ ...header, tenant }, payload),
        mark: undefined,
        deliver: undefined,
        tenant,
      }
    })
  }

  #note(commands: readonly NewCommand[], results: Awaited<ReturnType<typeof appendOwned>>): void {
    for (const [i, result] of results.entries()) {
      if (result.kind === 'stored')
        this.#known.push({ token: result.token, tenant: commands[i]?.tenant ?? '' })
    }
  }

  async #append(): Promise<void> {
    const commands = this.#some(4)
    this.#note(commands, await appendOwned(this.#link, this.here, commands, QUOTA))
  }

  async #appendKeyed(): Promise<void> {
    const commands = this.#some(4).map((command): NewCommand => {
      const print = Buffer.alloc(8, this.#chance.whole(0, 1))
      const key = `i${this.#chance.whole(0, 20)}`
      return {
        ...command,
        mark: this.#chance.happens(0.6) ? idempotencyMark(command.tenant ?? '', key, print) : undefined,
        deliver: this.#chance.happens(0.5) ? { delayMs: this.#chance.whole(0, 3) } : undefined,
      }
    })
    const atomic = this.#chance.happens(0.4)
    this.#note(commands, await appendKeyed(this.#link, this.here, commands, LIMITS, Date.now(), atomic))
  }

  async #fire(): Promise<void> {
    const tenant = this.#chance.pick(TENANTS)
    const header = {
      type: step.type,
      version: 1,
      atMs: 1,
      key: 'k0',
      trace: undefined,
      tickMs: 7,
      trail: undefined,
    }
    await fireSchedule(
      this.#link,
      { name: 'tick', keys: this.here, tenant },
      {
        ...{ epoch: '', watermarkMs: undefined, tickMs: Date.now(), missed: NONE_MISSED },
        blob: encodeEntry({ ...header, tenant }, packPayload({ key: 'k0', text: '' })),
        overlap: this.#chance.happens(0.5) ? 'allow' : 'forbid',
      },
    )
  }

  async #relay(): Promise<void> {
    const entries = await readOutbox(this.#link, this.here, 5, '')
    if (entries.length === 0) return
    await appendOnce(this.#link, this.here, `${STREAM}.1`, entries)
    if (this.#chance.happens(0.5)) await trimOutbox(this.#link, this.here, entries.at(-1)?.id ?? '0-0')
  }

  async #redrive(): Promise<void> {
    const page = { from: '-', to: '+', countMax: 3, newestFirst: this.#chance.happens(0.5) }
    const { entries } = await readDead(this.#link, this.here, page)
    const moves = entries.map(toRedrive)
    if (moves.length > 0) await redriveDead(this.#link, this.here, [...moves, ...moves.slice(0, 1)])
  }

  // ── in hand ──

  async #read(): Promise<void> {
    const entries = await readNew(this.#reader, this.#membership, this.#chance.whole(1, 6), 1)
    this.#hold(entries)
  }

  #hold(entries: readonly ReadEntry[]): void {
    const { epoch } = this.#membership
    const scope: RunScope = {
      ...{ stream: STREAM, partition: 0, ids: this.#ids, clock: SYSTEM_CLOCK, epoch },
      serverNowMs: () => Date.now(),
      partitionsOf: () => 2,
    }
    for (const read of entries) {
      if (read.blob === undefined) continue
      const entry = decodeEntry(read.blob)
      const ref = epoch === undefined ? { ...read } : new OrderedCommand(read, entry, 0, 0)
      this.#hands.push({ run: new CommandRun(scope, ref, entry), membership: this.#membership })
    }
  }

  #decide(given: CommandRun): Decided {
    const run = given.again()
    const kind = this.#chance.pick(['done', 'done', 'retry', 'dead'] as const)
    for (let n = this.#chance.whole(0, 2); n > 0; n--) run.emit(taken, { n })
    for (let n = this.#chance.whole(0, 2); n > 0; n--) {
      const delay = this.#chance.happens(0.3) ? { delayMs: 1 } : {}
      run.send(step, { key: `k${this.#chance.whole(0, 9)}`, text: 'sent' }, delay)
    }
    switch (kind) {
      case 'done':
        return toDecided(run, { kind, result: this.#chance.happens(0.2) ? 'well' : undefined })
      case 'retry':
        return toDecided(run, { kind, error: 'not now', delayMs: 1 })
      case 'dead':
        return toDecided(run, { kind, reason: 'rejected', error: 'never' })
      default:
        return kind satisfies never
    }
  }

  async #settle(): Promise<void> {
    const chosen = this.#hands.filter(() => this.#chance.happens(0.6))
    const [first] = chosen
    if (first === undefined) return
    // A request is one consumer's; a part of what it settles stays in hand, as if its answer had been lost.
    const { membership } = first
    const own = chosen.filter((hand) => hand.membership === membership)
    const decided = own.map(({ run }) => this.#decide(run))
    this.#hands = this.#hands.filter((hand) => !own.includes(hand) || this.#chance.happens(0.2))
    const successes = decided.flatMap((each) => ('success' in each ? [each.success] : []))
    const request = {
      plain: successes.filter(isPlain).map(({ ref }) => ref),
      successes: successes.filter((success) => !isPlain(success)),
      failures: decided.flatMap((each) => ('failure' in each ? [each.failure] : [])),
    }
    this.#sent.push({ request, membership })
    await settle(this.#link, membership, request)
  }

  async #settleAgain(): Promise<void> {
    const [first] = this.#sent
    if (first === undefined) return
    const { request, membership } = this.#chance.pick(this.#sent)
    await settle(this.#link, membership, request)
  }

  async #takeOver(): Promise<void> {
    const from = this.#membership.consumer
    this.#membership = sharedMembership(this.here, from === 'a' ? 'b' : 'a')
    for (const consumer of [from, FREE_CONSUMER]) {
      const claimed = await takeOver(
        this.#link,
        this.here,
        { consumer, beat: '' },
        this.#membership.consumer,
        4,
      )
      this.#hold(claimed?.entries ?? [])
    }
  }

  async #take(): Promise<void> {
    const [owner = null, epoch = null] = await this.#link.client.hmget(this.here.lease, 'owner', 'epoch')
    const seen = { partition: 0, owner: owner ?? '', epoch: epoch ?? '', wanted: '', beat: '' }
    const me = this.#chance.pick(['a', 'b'])
    const lease = await takePartition(this.#link, this.here, membersKey([this.here]), me, seen)
    if (lease !== undefined) this.#membership = leasedMembership(this.here, me, lease.epoch)
  }

  async #release(): Promise<void> {
    if (this.#isOrdered) return
    const given = this.#hands.filter(
      ({ membership }) => membership === this.#membership && this.#chance.happens(0.5),
    )
    const refs = given.map(({ run }) => run.ref)
    await releaseEntries(this.#link, this.here, this.#membership.consumer, refs, false)
  }

  // ── ending ──

  async #cancel(): Promise<void> {
    if (this.#known.length === 0) return
    const { token, tenant } = this.#chance.pick(this.#known)
    await cancelCommand(this.#link, this.here, token, packPayload({}), tenant)
  }

  async #discard(): Promise<void> {
    const { entries } = await readDead(this.#link, this.here, {
      from: '-',
      to: '+',
      countMax: 1,
      newestFirst: false,
    })
    await discardDead(this.#link, this.here, entries)
  }

  async #trim(): Promise<void> {
    await trimCommands(this.#link, this.here)
    await dropFinished(this.#link, this.here, 'commands', undefined, 0)
  }
}
