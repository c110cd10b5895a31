/**
 * The body of one event tail: asks the tail for more whenever the connection has room, and says something when there is
 * nothing to say, so that nobody on the way takes silence for a dead connection.
 *
 *   open ──▶ events, heartbeats ──reader left──▶ closed
 *                    ├──the process drains─▶ a hint to come back ─▶ closed
 *                    └──reader takes nothing─▶ `gap` ─▶ closed, and cut if even that is not taken
 *
 * At most one answer of the tail waits here for the connection.
 */
import { describeError } from '../contracts/errors.ts'
import type { Telemetry } from '../contracts/telemetry.ts'
import type { Clock } from '../runtime/clock.ts'
import type { Tail, TailItem } from '../tails/tail.ts'
import type { TailEnd } from '../tails/tails.ts'
import { type EventOrigins, itemText, placeText, retryText, slowText } from './event-text.ts'

export interface EventStreamParts {
  readonly origins: EventOrigins
  readonly heartbeatMs: number
  readonly clock: Clock
  readonly telemetry: Telemetry
  /** How long the connection may be silent from now on, in seconds; 0 for ever. */
  readonly limitSilence: (seconds: number) => void
  readonly close: (tail: Tail, end: TailEnd) => void
}

/** How long a browser waits before it comes back; spread, so that not all come at once. */
const RETRY_MS = 2000
/** After a drain, sooner: another process is ready. */
const DRAINED_RETRY_MS = 250
/** Beyond that the connection of a reader that takes nothing is cut. */
const REST_S = 1

export class EventStream {
  readonly body: ReadableStream<Uint8Array>
  readonly #tail: Tail
  readonly #parts: EventStreamParts
  readonly #encoder = new TextEncoder()
  #controller: ReadableStreamDefaultController<Uint8Array> | undefined
  #greeted = false

  constructor(tail: Tail, parts: EventStreamParts) {
    this.#tail = tail
    this.#parts = parts
    this.body = new ReadableStream(
      {
        start: (controller) => {
          this.#controller = controller
        },
        pull: () => this.#pull(),
        cancel: () => this.leave(),
      },
      // Nothing is asked for before the connection has room: how fast a reader is shows here.
      { highWaterMark: 0 },
    )
  }

  /** The reader is gone. */
  leave(): void {
    this.#controller = undefined
    this.#parts.close(this.#tail, 'client')
  }

  /** The process has ended the tail. */
  end(end: 'slow' | 'draining'): void {
    const { telemetry, clock } = this.#parts
    const { stream, cursor } = this.#tail
    if (end === 'slow') {
      telemetry.emit('tail.gap-told', { stream, reason: 'slow' })
      this.#finish(slowText(cursor))
    } else {
      const retry = retryText(DRAINED_RETRY_MS * (1 + 3 * clock.random()))
      this.#finish(retry + placeText(cursor, 'draining'))
    }
  }

  async #pull(): Promise<void> {
    const { heartbeatMs, clock, limitSilence } = this.#parts
    if (!this.#greeted) {
      this.#greeted = true
      // Heartbeats may be rarer than the server's patience. Of a HEAD request nothing is ever pulled.
      limitSilence(0)
      this.#write(retryText(RETRY_MS * (1 + clock.random())) + placeText(this.#tail.cursor, 'tail'))
      return
    }
    try {
      const items = await this.#tail.next(heartbeatMs)
      if (this.#tail.closed) return
      this.#write(items.length === 0 ? placeText(this.#tail.cursor, 'heartbeat') : this.#tell(items))
    } catch (error) {
      this.#fail(error)
    }
  }

  #tell(items: readonly TailItem[]): string {
    const { origins, telemetry } = this.#parts
    const { stream } = this.#tail
    let count = 0
    let text = ''
    for (const item of items) {
      text += itemText(item, origins)
      if (item.kind === 'event') count += 1
      else telemetry.emit('tail.gap-told', { stream, reason: item.reason })
    }
    if (count > 0) telemetry.emit('tail.sent', { stream, count })
    return text
  }

  #write(text: string): void {
    this.#controller?.enqueue(this.#encoder.encode(text))
  }

  #finish(text: string): void {
    const controller = this.#controller
    if (controller === undefined) return
    this.#write(text)
    this.#controller = undefined
    controller.close()
    // A reader that takes nothing would hold its connection, and what waits for it, for ever.
    this.#parts.limitSilence(REST_S)
  }

  /** Ends as a cut connection does: the reader comes back with the last id. */
  #fail(error: unknown): void {
    const { telemetry, close } = this.#parts
    telemetry.emit('request.failed', { route: 'event.tail', requestId: '', error: describeError(error) })
    close(this.#tail, 'failed')
    this.#controller?.close()
    this.#controller = undefined
  }
}
