/**
 * A producer in process: commands go from code straight into Redis, on the path that those of the HTTP API take. The same
 * checks, the same refusals, the same promises; only the request is missing.
 *
 *   send ─▶ limits of any payload ─▶ bus: admit, validate, pack ─▶ lane of the partition ─▶ one script per turn ─▶ id
 */
import type { CommandBus } from '../commands/command-bus.ts'
import { type MaybeSubmission, submitReadable } from '../commands/readable-submissions.ts'
import type { SubmitOptions } from '../commands/submission.ts'
import { readEnvironment } from '../config/environment.ts'
import {
  givenInCode,
  PRODUCER_SETTING_NAMES,
  type ProducerSettings,
  resolveProducerSettings,
  type UnsafeName,
} from '../config/settings.ts'
import type { CommandDefinition } from '../contracts/command.ts'
import { errorCode, MillraceError } from '../contracts/errors.ts'
import { type Logger, SILENT_LOGGER } from '../contracts/logger.ts'
import { checkKnownOptions } from '../contracts/names.ts'
import type {
  AcceptedCommand,
  Belonging,
  CommandSituation,
  Producer,
  Sending,
  SendingOptions,
  SubmitOutcome,
} from '../contracts/producer.ts'
import type { TelemetryListener } from '../contracts/telemetry.ts'
import { parseDelivery, parseExpiry } from '../http/delivery.ts'
import { checkIdempotencyKey } from '../http/idempotency-key.ts'
import { checkPayload } from '../http/payload-limits.ts'
import type { Definition } from '../policies/catalogue.ts'
import { ViewReader } from '../projections/view-reader.ts'
import { SYSTEM_CLOCK } from '../runtime/clock.ts'
import { Supervisor } from '../runtime/supervisor.ts'
import { TelemetryHub } from '../runtime/telemetry-hub.ts'
import { openEntrance } from './command-entrance.ts'
import { Foundation } from './foundation.ts'
import { type ProcessLogger, wrapLogger } from './process-logger.ts'
import { logTelemetry } from './telemetry-log.ts'

export interface ProducerOptions
  extends Partial<Omit<ProducerSettings, 'redisUrl' | 'redisServer' | 'allowUnsafe'>> {
  /** The commands that may be sent, and the streams they name if those are declared. Default: the modules of `workersFolder`. */
  readonly definitions?: Iterable<Definition>
  readonly redisUrl?: string
  readonly redisServer?: string
  readonly allowUnsafe?: readonly UnsafeName[]
  /** Default: says nothing. */
  readonly logger?: Logger
  /** Sees all telemetry, from the first moment. */
  readonly onTelemetry?: TelemetryListener
}

export const KNOWN_OPTIONS: readonly string[] = [
  ...PRODUCER_SETTING_NAMES,
  'definitions',
  'logger',
  'onTelemetry',
]

const SENDING_OPTIONS = [
  ...['idempotencyKey', 'delayMs', 'deliverAt', 'expiresInMs', 'expiresAt', 'traceparent', 'tenant'],
]
const SENDING_FIELDS = [...SENDING_OPTIONS, 'command', 'payload']

/**
 * Opens a producer in this process; it holds connections to Redis until it is stopped. Options are settings as `startMillrace`
 * takes them: what is not given comes from the environment, else from the defaults. At most 50 000 commands and 64 MiB may be
 * under way at once; beyond it `send` refuses with `admission.overloaded`.
 *
 *     await using producer = await openProducer({ definitions: [placeOrder] })
 *     const { id } = await producer.send(placeOrder, { orderId: 'o-1', sku: 'tea', quantity: 2 })
 *
 * @throws MillraceError every mistake in settings, definitions or the server, as one sentence; `redis.unavailable` after
 * `redisWaitMs`
 */
export async function openProducer(options: ProducerOptions = {}): Promise<Producer> {
  checkKnownOptions('openProducer', options, KNOWN_OPTIONS)
  return await startProducer(options, { readsViews: false })
}

/** With its inside open, for what is built on it in this process. */
export async function startProducer(
  options: ProducerOptions,
  { readsViews }: Pick<ProcessProducerParts, 'readsViews'>,
): Promise<ProcessProducer> {
  const environment = readEnvironment()
  const producer = new ProcessProducer({
    settings: resolveProducerSettings({ code: givenInCode(PRODUCER_SETTING_NAMES, options), environment }),
    definitions: options.definitions,
    logger: wrapLogger(options.logger ?? SILENT_LOGGER, 'debug'),
    onTelemetry: options.onTelemetry,
    readsViews,
  })
  await producer.start()
  return producer
}

interface ProcessProducerParts {
  readonly settings: ProducerSettings
  readonly definitions: Iterable<Definition> | undefined
  readonly logger: ProcessLogger
  readonly onTelemetry: TelemetryListener | undefined
  /** True: `views` is there too. */
  readonly readsViews: boolean
}

export class ProcessProducer implements Producer {
  readonly #parts: ProcessProducerParts
  readonly #telemetry: TelemetryHub = new TelemetryHub()
  readonly #supervisor: Supervisor
  #opened: CommandBus | undefined
  #views: ViewReader | undefined

  constructor(parts: ProcessProducerParts) {
    const { settings, logger, onTelemetry } = parts
    this.#parts = parts
    this.#telemetry.subscribe(logTelemetry(logger, SYSTEM_CLOCK))
    if (onTelemetry !== undefined) this.#telemetry.subscribe(onTelemetry)
    const { drainLimitMs } = settings
    this.#supervisor = new Supervisor({ clock: SYSTEM_CLOCK, telemetry: this.#telemetry, drainLimitMs })
  }

  async start(): Promise<void> {
    const shared = { supervisor: this.#supervisor, telemetry: this.#telemetry, clock: SYSTEM_CLOCK }
    const { settings, definitions, logger } = this.#parts
    try {
      await this.#supervisor.start()
      const given = { settings, definitions, logger, role: 'producer', mayJoin: true, accepts: true }
      const laid = await new Foundation({ ...shared, ...given }).lay()
      if (this.#parts.readsViews)
        this.#views = await this.#supervisor.run(new ViewReader({ ...shared, ...laid }))
      this.#opened = await this.#supervisor.run(await openEntrance({ ...shared, ...laid, settings }))
    } catch (error) {
      await this.stop()
      throw error
    }
  }

  send(command: CommandDefinition, payload: unknown, options?: SendingOptions): Promise<AcceptedCommand> {
    try {
      this.#checkVersion(command)
      if (options !== undefined) checkKnownOptions('send', options, SENDING_OPTIONS)
      checkPayload(payload)
      return this.#bus.submit(command.type, payload, options && submitOptions(options))
    } catch (error) {
      return Promise.reject(error)
    }
  }

  async sendMany(
    sendings: readonly Sending[],
    options: { readonly atomic?: boolean } = {},
  ): Promise<SubmitOutcome[]> {
    checkKnownOptions('sendMany', options, ['atomic'])
    const items = new Array<MaybeSubmission>(sendings.length)
    for (let i = 0; i < sendings.length; i++) items[i] = this.#toSubmission(sendings[i] as Sending)
    return await submitReadable(this.#bus, items, { atomic: options.atomic ?? false })
  }

  async status(id: string, belonging: Belonging = {}): Promise<CommandSituation> {
    checkKnownOptions('status', belonging, ['tenant'])
    const { partition: _, lastEventId: __, ...situation } = await this.#bus.status(id, belonging.tenant)
    return situation
  }

  async cancel(id: string, belonging: Belonging = {}): Promise<void> {
    checkKnownOptions('cancel', belonging, ['tenant'])
    await this.#bus.cancel(id, belonging.tenant)
  }

  stop(): Promise<void> {
    // From this call on, not from when it comes to the bus.
    this.#opened?.drain()
    return this.#supervisor.stop()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop()
  }

  /** @throws MillraceError `command.unknown-type` */
  definition(type: string): CommandDefinition {
    return this.#bus.definition(type)
  }

  get views(): ViewReader {
    if (this.#views !== undefined) return this.#views
    throw new MillraceError('service.stopped', 'No views can be read here.')
  }

  get #bus(): CommandBus {
    if (this.#opened !== undefined) return this.#opened
    throw new MillraceError('service.stopped', 'The producer has not been opened.')
  }

  /** What is refused here keeps its place among the others. */
  #toSubmission(sending: Sending): MaybeSubmission {
    try {
      const { command, payload } = sending
      this.#checkVersion(command)
      checkPayload(payload)
      if (isBare(sending)) return { type: command.type, payload }
      checkKnownOptions('A command of sendMany', sending, SENDING_FIELDS)
      return { type: command.type, payload, ...submitOptions(sending) }
    } catch (error) {
      if (errorCode(error) !== undefined) return error as MillraceError
      throw error
    }
  }

  /** What is stored follows the definition that the producer was opened with. */
  #checkVersion(command: CommandDefinition): void {
    const known = this.#bus.definition(command.type)
    if (known === command || known.version === command.version) return
    throw new MillraceError(
      'command.unknown-type',
      `"${command.type}" is sent in version ${command.version}, and this producer was opened with version ${known.version}: use that definition, or open it with yours.`,
    )
  }
}

/** Without options, as most are: there is nothing to check and to copy. */
function isBare(sending: Sending): boolean {
  for (const name in sending) if (name !== 'command' && name !== 'payload') return false
  return true
}

function submitOptions(options: SendingOptions): SubmitOptions {
  const { idempotencyKey, delayMs, deliverAt, expiresInMs, expiresAt, traceparent, tenant } = options
  return {
    idempotencyKey: idempotencyKey === undefined ? undefined : checkIdempotencyKey(idempotencyKey),
    deliver: parseDelivery(delayMs, timeText(deliverAt)),
    expires: parseExpiry(expiresInMs, timeText(expiresAt)),
    trace: traceparent,
    tenant,
  }
}

/** A Date that is none is refused like any other text that is no time. */
function timeText(time: Date | string | undefined): string | undefined {
  if (!(time instanceof Date)) return time
  return Number.isNaN(time.getTime()) ? 'no time' : time.toISOString()
}
