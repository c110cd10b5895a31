/**
 * From a submission to the bytes of an entry and the lane they belong in: find the definition, validate, pack, find the
 * key, mark for idempotency. Pure but for the clock; nothing here waits for Redis.
 */
import type { CommandDefinition } from '../contracts/command.ts'
import { describeError, errorCode, MillraceError } from '../contracts/errors.ts'
import { nearest } from '../contracts/names.ts'
import { validatePayload } from '../contracts/schema.ts'
import { checkTenant, NO_TENANT, type Tenant } from '../contracts/tenant.ts'
import { partitionOf } from '../policies/partition.ts'
import type { IdempotencyMark } from '../redis/command-log.ts'
import { packTrace } from '../redis/entry-codec.ts'
import { EntrySlab, type LyingEntry } from '../redis/entry-slab.ts'
import { packPayload } from '../redis/payload-codec.ts'
import type { Clock } from '../runtime/clock.ts'
import type { Door } from './admission-gate.ts'
import type { AppendLane, AppendSink, Waiting } from './append-lane.ts'
import { fingerprintOf, idempotencyMark } from './idempotency.ts'
import type { CommandBusOptions, Delivery, Expiry, Submission, SubmitOptions } from './submission.ts'

/** Where the commands of one type go. */
export interface Route {
  readonly command: CommandDefinition
  readonly stream: string
  readonly door: Door
  /** By partition. */
  readonly lanes: readonly AppendLane[]
}

/** A command that is ready to be appended. */
export interface Prepared extends Waiting {
  /** The sink's own number for it. */
  readonly index: number
  readonly route: Route
  readonly partition: number
  readonly lane: AppendLane
  readonly tenant: Tenant
}

type IntakeLimits = Pick<CommandBusOptions, 'payloadBytesMax' | 'delayMsMax'>

export class Intake {
  readonly #routes: ReadonlyMap<string, Route>
  readonly #clock: Clock
  readonly #limits: IntakeLimits
  readonly #serverNowMs: () => number
  readonly #slab = new EntrySlab()

  /** `serverNowMs` is Redis's clock, for deadlines. */
  constructor(
    routes: ReadonlyMap<string, Route>,
    clock: Clock,
    serverNowMs: () => number,
    limits: IntakeLimits,
  ) {
    this.#routes = routes
    this.#clock = clock
    this.#serverNowMs = serverNowMs
    this.#limits = limits
  }

  /** @throws MillraceError `command.unknown-type` */
  route(type: string): Route {
    const route = this.#routes.get(type)
    if (route !== undefined) return route
    const near = nearest(type.slice(0, 80), this.#routes.keys())
    const hint = near === undefined ? '' : ` Did you mean "${near}"?`
    throw new MillraceError('command.unknown-type', `There is no command type "${type.slice(0, 80)}".${hint}`)
  }

  /**
   * A promise only where the schema is asynchronous.
   *
   * @throws MillraceError `command.invalid`, `command.too-large`
   */
  prepare(
    route: Route,
    payload: unknown,
    options: SubmitOptions,
    sink: AppendSink,
    index: number,
  ): Prepared | Promise<Prepared> {
    const { type, payload: schema } = route.command
    const valid = validatePayload(type, schema, payload)
    if (valid instanceof Promise)
      return valid.then((settled) => this.#encode(route, payload, settled, options, sink, index))
    return this.#encode(route, payload, valid, options, sink, index)
  }

  #encode(
    route: Route,
    input: unknown,
    valid: unknown,
    options: SubmitOptions,
    sink: AppendSink,
    index: number,
  ): Prepared {
    const { command, lanes } = route
    const key = command.key === undefined ? (options.cloudEvent?.subject ?? '') : keyOf(command, valid)
    const expiresAtMs =
      options.expires === undefined ? undefined : this.#checkExpiry(options.expires, options)
    const { tenant = NO_TENANT } = options
    if (tenant !== NO_TENANT) checkTenant(tenant)
    const entry = this.#write(command, key, expiresAtMs, options, valid, tenant)
    const payloadBytes = entry.to - entry.payloadAt
    if (payloadBytes > this.#limits.payloadBytesMax) {
      throw new MillraceError(
        'command.too-large',
        `The payload of "${command.type}" has ${payloadBytes} bytes; at most ${this.#limits.payloadBytesMax} are allowed.`,
      )
    }
    const partition =
      lanes.length === 1
        ? 0
        : partitionOf(
            command.key === undefined && key === '' ? entry.slab.subarray(entry.payloadAt, entry.to) : key,
            lanes.length,
            tenant,
          )
    const lane = lanes[partition]
    if (lane === undefined) {
      throw new MillraceError('config.invalid', `Stream "${route.stream}" has no partition ${partition}.`)
    }
    return {
      sink,
      index,
      route,
      partition,
      lane,
      tenant,
      entry,
      mark: markOf(command.type, input, options),
      deliver: options.deliver === undefined ? undefined : this.#checkDelivery(options.deliver),
    }
  }

  /** @throws MillraceError `command.invalid` */
  #write(
    { type, version }: CommandDefinition,
    key: string,
    expiresAtMs: number | undefined,
    options: SubmitOptions,
    payload: unknown,
    tenant: Tenant,
  ): LyingEntry {
    const trace = options.trace === undefined ? undefined : packTrace(options.trace)
    const origin = options.cloudEvent === undefined ? undefined : packPayload(options.cloudEvent)
    const atMs = this.#clock.nowMs()
    try {
      return this.#slab.write(
        { type, version, atMs, key, tenant, trace, tickMs: undefined, expiresAtMs, trail: undefined, origin },
        payload,
      )
    } catch (error) {
      throw toStorageError(error, type)
    }
  }

  #checkDelivery(deliver: Delivery): Delivery | undefined {
    const { delayMsMax } = this.#limits
    if ('delayMs' in deliver) {
      const { delayMs } = deliver
      if (Number.isInteger(delayMs) && delayMs >= 0 && delayMs <= delayMsMax) {
        return delayMs === 0 ? undefined : deliver
      }
      throw new MillraceError('command.invalid', `"delayMs" must be a whole number from 0 to ${delayMsMax}.`)
    }
    const latestMs = this.#clock.nowMs() + delayMsMax
    if (Number.isInteger(deliver.atMs) && deliver.atMs >= 0 && deliver.atMs <= latestMs) return deliver
    throw new MillraceError(
      'command.invalid',
      `"deliverAt" must be a time at most ${delayMsMax} ms from now.`,
    )
  }

  /** A time that has passed is taken: the command ends as expired, and a repetition of it finds the first one. */
  #checkExpiry(expires: Expiry, { deliver }: SubmitOptions): number {
    const { delayMsMax } = this.#limits
    if (deliver !== undefined) checkOrder(deliver, expires)
    const nowMs = this.#serverNowMs()
    if (Number.isNaN(nowMs)) {
      throw new MillraceError('redis.unavailable', "Redis's clock is not known yet; nothing was stored.", {
        retryAfterS: 1,
      })
    }
    if ('inMs' in expires) {
      const { inMs } = expires
      if (Number.isInteger(inMs) && inMs >= 1 && inMs <= delayMsMax) return Math.floor(nowMs + inMs)
      throw new MillraceError(
        'command.invalid',
        `"expiresInMs" must be a whole number from 1 to ${delayMsMax}.`,
      )
    }
    const { atMs } = expires
    if (Number.isInteger(atMs) && atMs >= 0 && atMs <= nowMs + delayMsMax) return atMs
    throw new MillraceError(
      'command.invalid',
      `"expiresAt" must be a time at most ${delayMsMax} ms from now.`,
    )
  }
}

/** Both from now on, or both as times: so a repetition is judged as the first one was. */
function checkOrder(deliver: Delivery, expires: Expiry): void {
  if ('delayMs' in deliver !== 'inMs' in expires) {
    throw new MillraceError(
      'command.invalid',
      'Give "expiresInMs" with "delayMs", or "expiresAt" with "deliverAt".',
    )
  }
  const deliverMs = 'delayMs' in deliver ? deliver.delayMs : deliver.atMs
  const expireMs = 'inMs' in expires ? expires.inMs : expires.atMs
  if (expireMs > deliverMs) return
  throw new MillraceError(
    'command.invalid',
    'The command would expire before it is delivered; let it expire later.',
  )
}

function markOf(type: string, input: unknown, options: SubmitOptions): IdempotencyMark | undefined {
  const { idempotencyKey, fingerprint, tenant = NO_TENANT } = options
  if (idempotencyKey === undefined) return undefined
  return idempotencyMark(
    tenant,
    idempotencyKey,
    fingerprint ?? fingerprintOf(type, 'payload', pack(type, input)),
  )
}

function toStorageError(error: unknown, type: string): MillraceError {
  if (errorCode(error) !== undefined) return error as MillraceError
  const why = describeError(error, 200)
  return new MillraceError('command.invalid', `The payload of "${type}" can't be stored: ${why}.`)
}

/** @throws MillraceError `command.invalid` */
function pack(type: string, payload: unknown): Buffer {
  try {
    return packPayload(payload)
  } catch (error) {
    throw toStorageError(error, type)
  }
}

/** @throws MillraceError `command.invalid` */
function keyOf(command: CommandDefinition, payload: unknown): string {
  const key: unknown = command.key?.(payload)
  if (typeof key === 'string') return key
  throw new MillraceError('command.invalid', `The key of "${command.type}" is not a text.`)
}

/** What a submission is refused with: a fault of a schema or a key function is the payload's fault, told without it. */
export function toRefusal(error: unknown, { type }: Pick<Submission, 'type'>): MillraceError {
  if (errorCode(error) !== undefined) return error as MillraceError
  return new MillraceError(
    'command.invalid',
    `Checking the payload of "${type}" failed: ${describeError(error, 200)}.`,
  )
}
