/**
 * This process's connections to Redis: opened and proved fit before anything else uses them, closed after everything else.
 */
import type { Settings } from '../config/settings.ts'
import { MillraceError } from '../contracts/errors.ts'
import type { Telemetry } from '../contracts/telemetry.ts'
import type { Catalogue } from '../policies/catalogue.ts'
import type { CommandIds } from '../redis/command-id.ts'
import { CONNECTION_DEFAULTS, type RedisLink, RedisLinks } from '../redis/connection.ts'
import { joinFleet } from '../redis/fleet.ts'
import { checkServer, openFirstLink, type ServerInfo } from '../redis/server-check.ts'
import type { Clock } from '../runtime/clock.ts'
import { Service } from '../runtime/service.ts'

export interface ConnectionsOptions {
  readonly url: string
  readonly settings: Settings
  readonly catalogue: Catalogue
  readonly clock: Clock
  readonly telemetry: Telemetry
}

interface Opened {
  readonly command: RedisLink
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
    const { settings, catalogue } = this.#options
    const command = await openFirstLink(this.links, settings.redisWaitMs, this.stopSignal)
    const server = await checkServer(command, {
      durability: settings.durability,
      tolerated: settings.allowUnsafe,
    })
    const ids = await joinFleet(command, catalogue.streams.values())
    this.#opened = { command, ids, server }
  }

  protected override async onStop(): Promise<void> {
    this.links.closeAll()
  }
}
