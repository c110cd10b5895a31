/**
 * This process's connections to Redis: opened and proved fit before anything else uses them, closed after everything else.
 */
import type { ConnectionSettings } from '../config/settings.ts'
import { MillraceError } from '../contracts/errors.ts'
import type { Telemetry } from '../contracts/telemetry.ts'
import type { Catalogue } from '../policies/catalogue.ts'
import type { CommandIds } from '../redis/command-id.ts'
import { CONNECTION_DEFAULTS, type RedisLink, RedisLinks } from '../redis/connection.ts'
import { joinFleet } from '../redis/fleet.ts'
import { LossWatch } from '../redis/loss-watch.ts'
import {
  type Confirmation,
  chooseConfirmation,
  hasWaitAof,
  type ReplicationRule,
} from '../redis/replication.ts'
import {
  checkReplicas,
  checkServer,
  fsyncConfig,
  openFirstLink,
  type ServerInfo,
} from '../redis/server-check.ts'
import type { Clock } from '../runtime/clock.ts'
import { Service } from '../runtime/service.ts'

export interface ConnectionsOptions {
  readonly url: string
  readonly settings: ConnectionSettings
  /** True for a role that takes commands in: it does not start where it could not keep its word. */
  readonly accepts: boolean
  readonly catalogue: Catalogue
  readonly clock: Clock
  readonly telemetry: Telemetry
}

/** How tier `replicated` is kept on this server. */
export interface Replication {
  readonly rule: ReplicationRule
  readonly confirmation: Confirmation
}

const REPLICAS_LOOK_MS = 100

interface Opened {
  readonly command: RedisLink
  /** Undefined for the other tiers. */
  readonly replication: Replication | undefined
  readonly lossWatch: LossWatch
  readonly ids: CommandIds
  readonly server: ServerInfo
}

export class Connections extends Service {
  readonly links: RedisLinks
  readonly #options: ConnectionsOptions
  #opened: Opened | undefined

  constructor(options: ConnectionsOptions) {
    super('connections')
    this.#options = options
    this.links = new RedisLinks({
      address: { url: options.url },
      telemetry: options.telemetry,
      random: () => options.clock.random(),
      ...CONNECTION_DEFAULTS,
    })
  }

  /** Known once started. */
  get opened(): Opened {
    if (this.#opened !== undefined) return this.#opened
    throw new MillraceError('service.stopped', 'The connections to Redis are not open.')
  }

  protected override async onStart(): Promise<void> {
    const { settings, catalogue, telemetry } = this.#options
    const command = await openFirstLink(this.links, settings.redisWaitMs, this.stopSignal)
    const server = await checkServer(command, {
      durability: settings.durability,
      tolerated: settings.allowUnsafe,
    })
    const replication = await this.#replication(command, server)
    const ids = await joinFleet(command, catalogue.streams.values())
    const lossWatch = new LossWatch({ telemetry, streams: catalogue.streams.values() })
    await lossWatch.watch(command)
    this.#opened = { command, replication, lossWatch, ids, server }
  }

  /** A role that only works on what was accepted starts also while replicas are away. */
  async #replication(link: RedisLink, server: ServerInfo): Promise<Replication | undefined> {
    const { settings, accepts, clock } = this.#options
    if (settings.durability !== 'replicated') return undefined
    const rule = { replicas: settings.replicas, waitMs: settings.replicaWaitMs }
    if (accepts) {
      const endMs = clock.monotonicMs() + settings.redisWaitMs
      await checkReplicas(link, rule, settings.allowUnsafe, async () => {
        if (clock.monotonicMs() >= endMs || this.stopSignal.aborted) return false
        await clock.sleep(REPLICAS_LOOK_MS, this.stopSignal)
        return true
      })
    }
    const config = await fsyncConfig(link)
    const confirmation = chooseConfirmation({
      hasWaitAof: await hasWaitAof(link),
      appendOnly: server.appendOnly,
      appendfsync: config?.get('appendfsync'),
    })
    return { rule, confirmation }
  }

  protected override async onStop(): Promise<void> {
    this.links.closeAll()
  }
}
