/** The product's own connections, over simulated clients and in virtual time. */
import { MillraceError } from '../../src/contracts/errors.ts'
import type { Telemetry } from '../../src/contracts/telemetry.ts'
import { type ClientOptions, type ConnectionRole, RedisLink, RedisLinks } from '../../src/redis/connection.ts'
import type { StreamMarks } from '../../src/redis/stream-marks.ts'
import type { Clock } from '../../src/runtime/clock.ts'
import { asRedis, ClientEnd } from './client-end.ts'
import type { Network } from './network.ts'
import type { Strand } from './virtual-time.ts'

export interface LinksParts {
  readonly network: Network
  readonly strand: Strand
  readonly clock: Clock
  readonly telemetry: Telemetry
  /** Of the process, for the trace. */
  readonly label: string
  readonly blockMs: number
  readonly commandTimeoutMs: number
}

/** `whenReady` waits in virtual time; everything else is the product's. */
class SimulatedLink extends RedisLink {
  readonly #clock: Clock

  constructor(role: ConnectionRole, parts: LinksParts, marks: StreamMarks) {
    const { network, strand, clock, telemetry, label, blockMs, commandTimeoutMs } = parts
    const options = {
      address: { url: 'redis://simulated' },
      telemetry,
      random: () => clock.random(),
      blockMs,
      commandTimeoutMs,
      dial: (chosen: ClientOptions) => asRedis(new ClientEnd(network, strand, `${label} ${role}`, chosen)),
    }
    super(role, options, marks)
    this.#clock = clock
  }

  override async whenReady(waitMs: number, signal?: AbortSignal): Promise<void> {
    if (this.ready) return
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const refuse = () => reject(new MillraceError('redis.unavailable', 'Redis is not reachable.'))
    const timer = this.#clock.after(waitMs, refuse)
    this.client.once('ready', resolve)
    this.client.once('end', refuse)
    signal?.addEventListener('abort', refuse, { once: true })
    if (signal?.aborted === true) refuse()
    try {
      await promise
    } finally {
      timer.cancel()
      this.client.off('ready', resolve)
      this.client.off('end', refuse)
      signal?.removeEventListener('abort', refuse)
    }
  }
}

export class SimulatedLinks extends RedisLinks {
  readonly #parts: LinksParts
  readonly #opened = new Set<RedisLink>()

  constructor(parts: LinksParts) {
    const { telemetry, clock, blockMs, commandTimeoutMs } = parts
    super({
      address: { url: 'redis://simulated' },
      telemetry,
      random: () => clock.random(),
      blockMs,
      commandTimeoutMs,
    })
    this.#parts = parts
  }

  override open(role: ConnectionRole): RedisLink {
    const link = new SimulatedLink(role, this.#parts, this.marks)
    this.#opened.add(link)
    return link
  }

  override close(link: RedisLink): void {
    this.#opened.delete(link)
    link.close()
  }

  override closeAll(): void {
    for (const link of this.#opened) link.close()
    this.#opened.clear()
  }
}
