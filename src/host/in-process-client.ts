/**
 * A client without HTTP: the same face and the same promises, over a producer and a view reader of this process. For workers that
 * send and read as their callers do, and for tests of what is written for a client.
 *
 * What goes wrong becomes the problem that HTTP would answer with, and that the error a client makes of it: so a fault has the
 * same code on both ways.
 */
import { CarriedClient } from '../client/carried-client.ts'
import type { Call, Carried, Carrier, Departure, Look, LookOptions, Parcel } from '../client/carrier.ts'
import type { Client, ClientView, ClientViewPage, CommandsOf, ViewPageOptions } from '../client/client.ts'
import {
  ClientError,
  errorOfAnswer,
  isClientError,
  isRetryable,
  leavesUnknown,
} from '../client/client-error.ts'
import { type ClientBounds, resolveBounds } from '../client/client-options.ts'
import { abortedBy, conclude, retrying } from '../client/retries.ts'
import { errorCode, MillraceError } from '../contracts/errors.ts'
import { checkKnownOptions } from '../contracts/names.ts'
import type { CommandSituation } from '../contracts/producer.ts'
import { matchesEtag } from '../http/etag.ts'
import { describeProblem, type Problem, problemFromError, problemOf } from '../http/problem.ts'
import { type Clock, SYSTEM_CLOCK } from '../runtime/clock.ts'
import { KNOWN_OPTIONS, type ProcessProducer, type ProducerOptions, startProducer } from './producer.ts'

type OwnBounds = Pick<
  ClientBounds,
  'attemptsMax' | 'backoffMinMs' | 'backoffMaxMs' | 'deadlineMs' | 'queueCountMax'
>
const OWN_BOUNDS: readonly (keyof OwnBounds)[] = [
  'attemptsMax',
  'backoffMinMs',
  'backoffMaxMs',
  'deadlineMs',
  'queueCountMax',
]

/** Those of `openProducer`, and how long and how often is tried, as `createClient` takes it. */
export interface InProcessClientOptions extends ProducerOptions, Partial<OwnBounds> {}

/**
 * Opens a client in this process; it holds connections to Redis until it is closed.
 *
 *     await using client = await inProcessClient<typeof import('./workers/orders/commands.ts')>({ definitions })
 *     const { ended } = await client.send('order.place', { orderId: 'o-1' }, { waitMs: 5000 })
 *
 * @throws MillraceError what `openProducer` throws; ClientError `invalid-option`
 */
export async function inProcessClient<Definitions = unknown>(
  options: InProcessClientOptions = {},
): Promise<Client<CommandsOf<Definitions>>> {
  checkKnownOptions('inProcessClient', options, [...KNOWN_OPTIONS, ...OWN_BOUNDS])
  const { attemptsMax, backoffMinMs, backoffMaxMs, deadlineMs, queueCountMax, ...rest } = options
  const bounds = resolveBounds(
    givenOf({ attemptsMax, backoffMinMs, backoffMaxMs, deadlineMs, queueCountMax }),
  )
  const producer = await startProducer(rest, { readsViews: true })
  const client = new CarriedClient(new ProcessCarrier(producer, bounds, SYSTEM_CLOCK), bounds, SYSTEM_CLOCK)
  return client as unknown as Client<CommandsOf<Definitions>>
}

function givenOf(bounds: { readonly [Name in keyof OwnBounds]: number | undefined }): Partial<OwnBounds> {
  return Object.fromEntries(Object.entries(bounds).filter(([, value]) => value !== undefined))
}

class ProcessCarrier implements Carrier {
  readonly lookPauseMs: readonly [number, number] = [5, 250]
  readonly #producer: ProcessProducer
  readonly #bounds: ClientBounds
  readonly #clock: Clock
  #sending = 0
  #onFate: (() => void)[] = []

  constructor(producer: ProcessProducer, bounds: ClientBounds, clock: Clock) {
    this.#producer = producer
    this.#bounds = bounds
    this.#clock = clock
  }

  prepare(parcel: Parcel): Departure {
    return { room: () => this.#room(), send: (signal) => this.#take(parcel, signal) }
  }

  async look(id: string, _options: LookOptions, _call: Call): Promise<Look> {
    const situation = await this.#reading(() => this.#producer.status(id), id)
    const problem = problemOfSituation(situation)
    return { situation: { ...situation, problem }, etag: undefined, retryAfterMs: undefined }
  }

  async cancel(id: string, _call: Call): Promise<void> {
    try {
      await this.#producer.cancel(id)
    } catch (error) {
      throw toClientError(error, problemFromError(error), id)
    }
  }

  async view(
    projection: string,
    key: string,
    { after, ifNoneMatch }: { readonly after: string | undefined; readonly ifNoneMatch: string | undefined },
    { deadlineMs, signal }: Call,
  ): Promise<ClientView> {
    const waitMs = Math.max(0, deadlineMs - this.#clock.monotonicMs())
    const options = after === undefined ? {} : { after, waitMs, signal }
    const found = await this.#reading(() => this.#readView(projection, key, options))
    const etag = found.etag === undefined ? undefined : `"${found.etag}"`
    const unchanged = etag !== undefined && matchesEtag(ifNoneMatch ?? null, etag)
    return {
      value: unchanged ? undefined : found.value,
      ...{ unchanged, etag, position: found.position, afterStatus: found.afterState },
    }
  }

  async page(
    projection: string,
    options: Omit<ViewPageOptions, 'signal'>,
    _call: Call,
  ): Promise<ClientViewPage> {
    const { data, next } = await this.#reading(() => this.#producer.views.page(projection, options))
    return { views: data, next }
  }

  /** A command that is to be tried again needs the bus until then. */
  async close(): Promise<void> {
    while (this.#sending > 0) await this.#nextFate()
    await this.#producer.stop()
  }

  #room(): Promise<void> | undefined {
    return this.#sending < this.#bounds.queueCountMax ? undefined : this.#nextFate()
  }

  #nextFate(): Promise<void> {
    return new Promise((resolve) => this.#onFate.push(resolve))
  }

  /** The bus bounds what it has taken in; this bounds what waits to be tried again. */
  async #take(parcel: Parcel, signal: AbortSignal | undefined): Promise<Carried> {
    const { queueCountMax } = this.#bounds
    const { idempotencyKey } = parcel
    if (this.#sending >= queueCountMax) {
      const text = `At most ${queueCountMax} commands wait in a client: nothing was sent.`
      throw new ClientError('queue-full', text, { idempotencyKey })
    }
    if (signal?.aborted === true) throw conclude(abortedBy(signal), false, idempotencyKey)
    this.#sending += 1
    try {
      return await this.#send(parcel, signal)
    } finally {
      this.#sending -= 1
      for (const go of this.#onFate.splice(0)) go()
    }
  }

  async #send(parcel: Parcel, signal: AbortSignal | undefined): Promise<Carried> {
    const { idempotencyKey } = parcel
    let isUnknown = false
    const mayTryAgain = (error: ClientError): boolean => {
      isUnknown ||= leavesUnknown(error)
      return isRetryable(error) && (idempotencyKey !== undefined || !leavesUnknown(error))
    }
    const call = { deadlineMs: this.#clock.monotonicMs() + this.#bounds.deadlineMs, signal }
    try {
      return await retrying(() => this.#trySend(parcel), call, this.#bounds, this.#clock, mayTryAgain)
    } catch (error) {
      throw isClientError(error) ? conclude(error, isUnknown, idempotencyKey) : error
    }
  }

  async #trySend({ type, payload, options, idempotencyKey }: Parcel): Promise<Carried> {
    try {
      const command = this.#producer.definition(type)
      const accepted = await this.#producer.send(command, payload, { ...sendingOf(options), idempotencyKey })
      return { accepted, ended: undefined }
    } catch (error) {
      throw toClientError(error, problemFromError(error))
    }
  }

  /** An id that was never given out is a mistake of the call, not a missing view. */
  async #readView(
    projection: string,
    key: string,
    options: NonNullable<Parameters<ProcessProducer['views']['read']>[2]>,
  ): ReturnType<ProcessProducer['views']['read']> {
    try {
      return await this.#producer.views.read(projection, key, options)
    } catch (error) {
      if (errorCode(error) !== 'not-found') throw error
      throw new MillraceError(
        'command.malformed',
        '"after" is not the id of a command that was ever accepted.',
      )
    }
  }

  /** Who only reads has nothing that may or may not be stored. */
  async #reading<Value>(read: () => Promise<Value>, id?: string): Promise<Value> {
    try {
      return await read()
    } catch (error) {
      const isUnknown = problemOf(error) === 'outcome-unknown'
      const { message } = error as Error
      const problem = isUnknown
        ? describeProblem('temporary-reduced-capacity', message)
        : problemFromError(error)
      throw toClientError(error, problem, id)
    }
  }
}

function sendingOf({ delayMs, deliverAt, expiresInMs, expiresAt, traceparent }: Parcel['options']): object {
  return { delayMs, deliverAt, expiresInMs, expiresAt, traceparent }
}

function toClientError(cause: unknown, problem: Problem, id?: string): ClientError {
  const retryAfterS = (cause as Partial<MillraceError>).retryAfterS
  return errorOfAnswer(problem.status, problem, { cause, id, retryAfterS })
}

function problemOfSituation({ status, reason, error }: CommandSituation): Problem | undefined {
  if (status === 'lost')
    return describeProblem('command-lost', 'It was acknowledged, and Redis no longer has it.')
  const name = reason === 'expired' ? 'command-expired' : 'command-failed'
  return error === undefined ? undefined : describeProblem(name, error)
}
