/**
 * Places for requests with a body: each body has at most so many bytes, all of them together too, and there are only so many
 * at once.
 *
 * A declared length is refused before a byte is read; a body without one is counted while it comes in. A client that goes
 * away in the middle is counted and nothing more.
 *
 * A short body takes the room that it declares. A long one, or one without a length, takes room as it comes in: else some thirty
 * clients that declare much and send nothing would have all the room there is.
 */
import { MillraceError } from '../contracts/errors.ts'

export interface BodyBounds {
  /** Requests with a body that are handled at once. Default 10 000. */
  readonly requestsMax: number
  /** Bytes of their bodies together. Default 256 MiB. */
  readonly bytesMax: number
}

/** What one request takes up. */
export interface Place {
  /** Of its body, as far as it is here or promised. */
  bytes: number
  readonly bodyBytesMax: number
  readonly growsWithBody: boolean
}

/** Bodies up to this length are taken at their word, and read in one step. */
const TRUSTED_BYTES_MAX = 128 * 1024

export const BODY_BOUNDS_DEFAULTS: BodyBounds = { requestsMax: 10_000, bytesMax: 256 * 1024 ** 2 }

export class BodyReader {
  readonly #bounds: BodyBounds
  #requests = 0
  #bytes = 0

  constructor(bounds: BodyBounds) {
    this.#bounds = bounds
  }

  /** What is being handled now, for metrics. */
  get open(): { readonly requests: number; readonly bytes: number } {
    return { requests: this.#requests, bytes: this.#bytes }
  }

  /**
   * Takes a place for a request; give it back with `leave`, whatever comes of it.
   *
   * @throws MillraceError `command.too-large`, `admission.overloaded`
   */
  enter({ headers }: Request, bodyBytesMax: number): Place {
    const declared = declaredLength(headers)
    if (declared !== undefined && declared > bodyBytesMax) throw tooLarge(bodyBytesMax)
    const growsWithBody = declared === undefined || declared > TRUSTED_BYTES_MAX
    const bytes = growsWithBody ? 0 : declared
    if (this.#requests >= this.#bounds.requestsMax || this.#bytes + bytes > this.#bounds.bytesMax) {
      throw tooMany()
    }
    this.#requests += 1
    this.#bytes += bytes
    return { bytes, bodyBytesMax, growsWithBody }
  }

  /** The whole body of a request that has a place. Rejects with MillraceError `command.too-large`, `admission.overloaded`. */
  read(request: Request, place: Place): Promise<ArrayBuffer> {
    return place.growsWithBody ? this.#grow(request, place) : request.arrayBuffer()
  }

  async #grow({ body }: Request, place: Place): Promise<ArrayBuffer> {
    const parts: Uint8Array[] = []
    for await (const part of body ?? []) {
      if (place.bytes + part.length > place.bodyBytesMax) throw tooLarge(place.bodyBytesMax)
      if (this.#bytes + part.length > this.#bounds.bytesMax) throw tooMany()
      place.bytes += part.length
      this.#bytes += part.length
      parts.push(part)
    }
    return Bun.concatArrayBuffers(parts)
  }

  leave({ bytes }: Place): void {
    this.#requests -= 1
    this.#bytes -= bytes
  }
}

/** What Bun throws when a client goes away before its body is through. */
export function isAbort(error: unknown): boolean {
  return error instanceof Error && error.name === 'AbortError'
}

/** Undefined for a body of unknown length; without body and length it is 0. */
function declaredLength(headers: Headers): number | undefined {
  const text = headers.get('content-length')
  if (text !== null) return Number(text)
  return headers.has('transfer-encoding') ? undefined : 0
}

function tooMany(): MillraceError {
  return new MillraceError('admission.overloaded', 'Too many requests are being handled.', { retryAfterS: 1 })
}

function tooLarge(bodyBytesMax: number): MillraceError {
  return new MillraceError('command.too-large', `The body has more than ${bodyBytesMax} bytes.`)
}
