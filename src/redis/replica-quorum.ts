/**
 * Runs scripts and tells whether the replicas have what they wrote: tier `replicated`.
 *
 *   run ─▶ waiting ──(a socket is free)──▶ [EVALSHA, EVALSHA, …, WAIT n t] on that socket ─▶ replies ─▶ confirmed or not
 *
 * WAIT counts from the last command of its own connection, so a group goes over one socket, with one WAIT behind it; a script
 * that wrote nothing because its key was known is covered like one that did. WAIT holds its socket, so there are several.
 * The next group starts when the scripts of the last one have answered, not when they are confirmed: scripts run in the order
 * in which they were handed in, and a slow replica delays confirmations, not appends.
 */
import { MillraceError } from '../contracts/errors.ts'
import type { Argument, RedisLink, RedisLinks, ScriptRunner } from './connection.ts'
import { type Confirmation, confirmationCommand, isConfirmed, type ReplicationRule } from './replication.ts'
import { SCRIPTS, type ScriptName } from './scripts.ts'
import type { StreamMarks } from './stream-marks.ts'

export interface ReplicaQuorumOptions {
  readonly links: RedisLinks
  readonly rule: ReplicationRule
  readonly confirmation: Confirmation
  /** Sockets; WAIT blocks one each. Default 4. */
  readonly sockets?: number
}

export interface ConfirmedReply {
  readonly reply: unknown
  /** False: stored on the primary, and perhaps on too few replicas. */
  readonly confirmed: boolean
}

interface Call {
  readonly name: ScriptName
  readonly keys: readonly string[]
  readonly args: readonly Argument[]
  readonly resolve: (reply: ConfirmedReply) => void
  readonly reject: (error: unknown) => void
}

const SOCKETS = 4
/** Scripts behind one WAIT. */
const GROUP_MAX = 64

export class ReplicaQuorum {
  readonly rule: ReplicationRule
  readonly confirmation: Confirmation
  readonly marks: StreamMarks
  readonly #links: readonly RedisLink[]
  readonly #busy = new Set<RedisLink>()
  #waiting: Call[] = []
  #scheduled = false
  #isAppending = false

  constructor({ links, rule, confirmation, sockets = SOCKETS }: ReplicaQuorumOptions) {
    this.rule = rule
    this.confirmation = confirmation
    this.marks = links.marks
    this.#links = Array.from({ length: sockets }, () => links.open('ingest'))
  }

  /** True while scripts can be sent. */
  get ready(): boolean {
    return this.#links.some((link) => link.ready)
  }

  /** @throws MillraceError `redis.unavailable` */
  async whenReady(waitMs: number, signal?: AbortSignal): Promise<void> {
    await Promise.all(this.#links.map((link) => link.whenReady(waitMs, signal)))
  }

  /**
   * @throws MillraceError `redis.unavailable` (nothing ran), `redis.unknown` (it may have run), `admission.overloaded` (OOM)
   */
  run(name: ScriptName, keys: readonly string[], args: readonly Argument[]): Promise<ConfirmedReply> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ name, keys, args, resolve, reject })
      this.#schedule()
    })
  }

  /** What is handed in during one turn of promises goes out as one group. */
  #schedule(): void {
    if (this.#scheduled) return
    this.#scheduled = true
    queueMicrotask(() => {
      this.#scheduled = false
      this.#pump()
    })
  }

  #pump(): void {
    if (this.#isAppending || this.#waiting.length === 0) return
    const link = this.#links.find((each) => each.ready && !this.#busy.has(each))
    if (link === undefined) {
      // Busy ones come back by themselves, within the wait or the connection's own limit.
      if (this.#busy.size === 0) this.#refuseAll()
      return
    }
    const group = this.#waiting.splice(0, GROUP_MAX)
    this.#isAppending = true
    this.#busy.add(link)
    void this.#append(link, group)
  }

  #refuseAll(): void {
    const refused = this.#waiting
    this.#waiting = []
    for (const { reject } of refused) {
      reject(
        new MillraceError('redis.unavailable', 'Redis is not reachable; nothing was stored.', {
          retryAfterS: 1,
        }),
      )
    }
  }

  async #append(link: RedisLink, group: readonly Call[]): Promise<void> {
    link.client.stream.cork()
    const first = group.map((call) => send(link, 'EVALSHA', call))
    let confirming = this.#confirm(link)
    link.client.stream.uncork()
    let outcomes = await Promise.allSettled(first)
    if (outcomes.some(isUnknownScript)) {
      const again = outcomes.map((outcome, i) => {
        const call = group[i]
        if (call === undefined || !isUnknownScript(outcome)) return settledAs(outcome)
        return send(link, 'EVAL', call)
      })
      confirming = this.#confirm(link)
      outcomes = await Promise.allSettled(again)
    }
    this.#isAppending = false
    this.#schedule()
    const confirmed = await confirming
    this.#busy.delete(link)
    this.#schedule()
    for (const [i, call] of group.entries()) {
      const outcome = outcomes[i]
      if (outcome?.status === 'fulfilled') call.resolve({ reply: outcome.value, confirmed })
      else call.reject(outcome?.reason)
    }
  }

  /** A lost answer confirms nothing. */
  async #confirm(link: RedisLink): Promise<boolean> {
    const [command, ...args] = confirmationCommand(this.confirmation, this.rule)
    try {
      return isConfirmed(await link.use(command, (client) => client.call(command, ...args)), this.rule)
    } catch {
      return false
    }
  }
}

function send(link: RedisLink, command: 'EVALSHA' | 'EVAL', { name, keys, args }: Call): Promise<unknown> {
  const { digest, source } = SCRIPTS[name]
  const body = command === 'EVALSHA' ? digest : source
  return link.use(`script ${name}`, (client) =>
    client.callBuffer(command, [body, keys.length, ...keys, ...args]),
  )
}

function settledAs(outcome: PromiseSettledResult<unknown>): Promise<unknown> {
  return outcome.status === 'fulfilled' ? Promise.resolve(outcome.value) : Promise.reject(outcome.reason)
}

function isUnknownScript(outcome: PromiseSettledResult<unknown>): boolean {
  return outcome.status === 'rejected' && String(outcome.reason).includes('NOSCRIPT')
}

/** One write through a quorum, whose reply is used as if it came from a connection. */
export class ConfirmedAppend implements ScriptRunner {
  readonly marks: StreamMarks
  readonly #quorum: ReplicaQuorum
  #confirmed = true

  constructor(quorum: ReplicaQuorum) {
    this.#quorum = quorum
    this.marks = quorum.marks
  }

  /** True when everything that was run is on enough replicas. */
  get confirmed(): boolean {
    return this.#confirmed
  }

  async run(name: ScriptName, keys: readonly string[], args: readonly Argument[]): Promise<unknown> {
    const { reply, confirmed } = await this.#quorum.run(name, keys, args)
    this.#confirmed &&= confirmed
    return reply
  }
}
