/** The client over a carrier: checks what it is given, tries reads again, and waits for the end of commands. */
import type { CommandDefinition } from '../contracts/command.ts'
import type { CommandSituation } from '../contracts/producer.ts'
import { onAbort } from './abort-calls.ts'
import type { Call, Carried, Carrier, Departure, Parcel, Situation } from './carrier.ts'
import type {
  CallOptions,
  Client,
  ClientSending,
  ClientSendOptions,
  ClientView,
  ClientViewPage,
  SendAnswer,
  SendOutcome,
  ViewPageOptions,
  ViewReadOptions,
  WaitingOptions,
} from './client.ts'
import { type ClientClock, randomKey } from './client-clock.ts'
import { ClientError, isClientError } from './client-error.ts'
import { type ClientBounds, checkNames, checkWhole } from './client-options.ts'
import { abortedBy, pauseFor, retrying } from './retries.ts'

const TIMES = ['delayMs', 'deliverAt', 'expiresInMs', 'expiresAt', 'traceparent']
const SEND_OPTIONS = [...TIMES, 'idempotencyKey', 'waitMs', 'signal']
const SENDING_FIELDS = [...TIMES, 'idempotencyKey', 'command', 'payload']
const WAIT_MAX_MS = 86_400_000
/** For the look at the very end of a wait. */
const LAST_LOOK_MS = 1000
const KEY = /^[\x20-\x7e]{1,255}$/

export class CarriedClient implements Client {
  readonly #carrier: Carrier
  readonly #bounds: ClientBounds
  readonly #clock: ClientClock
  /** Aborts what waits when the client is closed. */
  readonly #ending = new AbortController()
  #closing: Promise<void> | undefined

  constructor(carrier: Carrier, bounds: ClientBounds, clock: ClientClock) {
    this.#carrier = carrier
    this.#bounds = bounds
    this.#clock = clock
  }

  async send(
    command: string | CommandDefinition,
    payload: unknown,
    options: ClientSendOptions = {},
  ): Promise<SendAnswer> {
    checkNames('send', options, SEND_OPTIONS)
    const { signal, waitMs } = options
    const waitUntilMs =
      waitMs === undefined
        ? undefined
        : this.#clock.monotonicMs() + checkWhole('waitMs', waitMs, 1, WAIT_MAX_MS)
    const { accepted, ended } = await this.#guarded(() =>
      this.#carrier.prepare(parcelOf({ command, payload, ...options }, waitUntilMs)).send(signal),
    )
    if (waitUntilMs === undefined) return { ...accepted, ended: undefined }
    const { id } = accepted
    const end = ended === undefined ? await this.#untilEnded(id, waitUntilMs, signal) : resultOf(ended)
    return { ...accepted, ended: end }
  }

  async sendMany(sendings: readonly ClientSending[], options: CallOptions = {}): Promise<SendOutcome[]> {
    checkNames('sendMany', options, ['signal'])
    const outcomes: Promise<SendOutcome>[] = []
    for (const sending of sendings) {
      const departure = this.#departure(sending)
      for (let room = departure.room(); room !== undefined; room = departure.room()) await room
      outcomes.push(outcomeOf(this.#guarded(() => departure.send(options.signal))))
    }
    return await Promise.all(outcomes)
  }

  async status(id: string, options: CallOptions = {}): Promise<CommandSituation> {
    checkNames('status', options, ['signal'])
    const { situation } = await this.#reading(options, (call) =>
      this.#carrier.look(id, { etag: undefined, waitMs: 0 }, call),
    )
    if (situation === undefined) throw new ClientError('fault', 'The answer holds no status.', { id })
    return told(situation)
  }

  result(id: string, options: WaitingOptions = {}): Promise<CommandSituation> {
    return this.#guarded(() => {
      checkNames('result', options, ['signal', 'timeoutMs'])
      return this.#untilEnded(id, this.#deadlineMs(options), options.signal)
    })
  }

  async cancel(id: string, options: CallOptions = {}): Promise<void> {
    checkNames('cancel', options, ['signal'])
    await this.#reading(options, (call) => this.#carrier.cancel(id, call))
  }

  async view<View>(
    projection: string,
    key: string,
    options: ViewReadOptions = {},
  ): Promise<ClientView<View>> {
    checkNames('view', options, ['signal', 'timeoutMs', 'after', 'ifNoneMatch'])
    const { after, ifNoneMatch } = options
    const view = await this.#reading(options, (call) =>
      this.#carrier.view(projection, key, { after, ifNoneMatch }, call),
    )
    return view as ClientView<View>
  }

  async *views<View>(
    projection: string,
    options: ViewPageOptions = {},
  ): AsyncGenerator<ClientViewPage<View>, void, undefined> {
    checkNames('views', options, ['signal', 'limit', 'cursor', 'prefix', 'direction'])
    const { signal: _, ...list } = options
    for (let cursor = list.cursor; ; ) {
      const wanted = { ...list, cursor }
      const page = await this.#reading(options, (call) => this.#carrier.page(projection, wanted, call))
      yield page as ClientViewPage<View>
      if (page.next === undefined) return
      cursor = page.next
    }
  }

  close(): Promise<void> {
    this.#ending.abort(closed())
    this.#closing ??= this.#carrier.close()
    return this.#closing
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  /** One of many that can not go fails where the others are sent. */
  #departure(sending: ClientSending): Departure {
    try {
      checkNames('A command of sendMany', sending, SENDING_FIELDS)
      return this.#carrier.prepare(parcelOf(sending, undefined))
    } catch (error) {
      return { room: () => undefined, send: () => Promise.reject(error) }
    }
  }

  async #untilEnded(
    id: string,
    deadlineMs: number,
    signal: AbortSignal | undefined,
  ): Promise<CommandSituation> {
    try {
      return await this.#joined(signal, (either) => this.#lookUntilEnded(id, deadlineMs, either))
    } catch (error) {
      throw isClientError(error) && error.id === undefined ? withId(error, id) : error
    }
  }

  /** A look may itself wait for the end; then the next one follows at once. At the deadline there is a last one. */
  async #lookUntilEnded(id: string, deadlineMs: number, signal: AbortSignal): Promise<CommandSituation> {
    const [pauseMinMs, pauseMaxMs] = this.#carrier.lookPauseMs
    let etag: string | undefined
    for (let pauseMs = pauseMinMs; ; pauseMs = Math.min(2 * pauseMs, pauseMaxMs)) {
      let startedMs = this.#clock.monotonicMs()
      const call = { deadlineMs: Math.max(deadlineMs, startedMs + LAST_LOOK_MS), signal }
      const look = await retrying(
        (each) => {
          startedMs = this.#clock.monotonicMs()
          return this.#carrier.look(id, { etag, waitMs: deadlineMs - startedMs }, each)
        },
        ...([call, this.#bounds, this.#clock] as const),
      )
      if (look.situation !== undefined && hasEnded(look.situation)) return resultOf(look.situation)
      const nowMs = this.#clock.monotonicMs()
      if (nowMs >= deadlineMs) throw new ClientError('timeout', 'The command has not ended yet.', { id })
      etag = look.etag
      const nextMs = startedMs + (look.retryAfterMs ?? pauseMs)
      await pauseFor(Math.max(0, Math.min(nextMs, deadlineMs) - nowMs), signal, this.#clock)
    }
  }

  /** A call that asks and changes nothing, or nothing twice. */
  #reading<Value>(options: WaitingOptions, attempt: (call: Call) => Promise<Value>): Promise<Value> {
    return this.#guarded(() => {
      const deadlineMs = this.#deadlineMs(options)
      return this.#joined(options.signal, (signal) =>
        retrying(attempt, { deadlineMs, signal }, this.#bounds, this.#clock),
      )
    })
  }

  #guarded<Value>(work: () => Promise<Value>): Promise<Value> {
    if (this.#ending.signal.aborted) return Promise.reject(closed())
    try {
      return work()
    } catch (error) {
      return Promise.reject(error)
    }
  }

  #deadlineMs({ timeoutMs }: WaitingOptions): number {
    const limitMs =
      timeoutMs === undefined ? this.#bounds.deadlineMs : checkWhole('timeoutMs', timeoutMs, 1, WAIT_MAX_MS)
    return this.#clock.monotonicMs() + limitMs
  }

  /** The caller's signal, or the end of the client. `AbortSignal.any` is missing in older browsers. */
  async #joined<Value>(
    signal: AbortSignal | undefined,
    work: (either: AbortSignal) => Promise<Value>,
  ): Promise<Value> {
    const ending = this.#ending.signal
    if (signal === undefined) return await work(ending)
    const either = new AbortController()
    const stops = [signal, ending].map((each) => {
      if (each.aborted) either.abort(abortedBy(each))
      return onAbort(each, () => either.abort(abortedBy(each)))
    })
    try {
      return await work(either.signal)
    } finally {
      for (const stop of stops) stop()
    }
  }
}

interface Given extends Omit<ClientSendOptions, 'waitMs'> {
  readonly command: string | CommandDefinition
  readonly payload: unknown
}

/** @throws ClientError `invalid-option` */
function parcelOf(given: Given, waitUntilMs: number | undefined): Parcel {
  const { command, payload, idempotencyKey, ...options } = given
  const type = typeof command === 'string' ? command : command.type
  return { type, payload, options, idempotencyKey: keyOf(idempotencyKey), waitUntilMs }
}

async function outcomeOf(sending: Promise<Carried>): Promise<SendOutcome> {
  try {
    return { accepted: (await sending).accepted }
  } catch (error) {
    if (isClientError(error)) return { accepted: undefined, error }
    throw error
  }
}

/** @throws ClientError `invalid-option` */
function keyOf(given: string | false | undefined): string | undefined {
  if (given === undefined) return randomKey()
  if (given === false) return undefined
  if (typeof given === 'string' && KEY.test(given)) return given
  throw new ClientError('invalid-option', '"idempotencyKey" must be 1-255 printable ASCII characters.')
}

function hasEnded({ status }: CommandSituation): boolean {
  switch (status) {
    case 'done':
    case 'dead':
    case 'cancelled':
    case 'lost':
      return true
    case 'scheduled':
    case 'accepted':
    case 'processing':
    case 'retrying':
      return false
    default:
      status satisfies never
      // A newer server's word: it is asked again until the time is over.
      return false
  }
}

/** @throws ClientError `command-dead`, `command-cancelled` */
function resultOf(situation: Situation): CommandSituation {
  const { id, status, problem, error } = situation
  if (status === 'done') return told(situation)
  if (status === 'cancelled') throw new ClientError('command-cancelled', 'The command was cancelled.', { id })
  const why = problem?.detail ?? error ?? 'nothing is known of the reason.'
  throw new ClientError('command-dead', `The command is ${status}: ${why}`, { id, problem })
}

function told({ problem: _, ...situation }: Situation): CommandSituation {
  return situation
}

function closed(): ClientError {
  return new ClientError('closed', 'The client is closed.')
}

function withId(error: ClientError, id: string): ClientError {
  const { code, message, cause, status, problem, retryAfterS, idempotencyKey } = error
  return new ClientError(code, message, { cause, status, problem, retryAfterS, id, idempotencyKey })
}
