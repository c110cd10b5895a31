/**
 * Places for requests with a body: each body has at most so many bytes, all of them together too, and there are only so many
 * at once.
 *
 * A declared length is refused before a byte is read; a body without one is counted while it comes in. A client that goes
 * away in the middle is counted and nothing more.
 */
import type { Context } from 'hono'
import { bodyLimit } from 'hono/body-limit'
import { MillraceError } from '../contracts/errors.ts'
import type { HttpEnv } from './http-env.ts'

export interface BodyBounds {
  /** Requests with a body that are handled at once. Default 10 000. */
  readonly requestsMax: number
  /** Bytes of their bodies together. Default 256 MiB. */
  readonly bytesMax: number
}

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
   * Takes a place for a request; give it back with `leave` and what this answered. A promise only for a body that comes
   * without its length. Afterwards the body may be read whole.
   *
   * @throws MillraceError `command.too-large`, `admission.overloaded`
   */
  enter(c: Context<HttpEnv>, bodyBytesMax: number): number | Promise<number> {
    const declared = declaredLength(c.req.raw.headers)
    if (declared !== undefined && declared > bodyBytesMax) throw tooLarge(bodyBytesMax)
    const bytes = declared ?? bodyBytesMax
    if (this.#requests >= this.#bounds.requestsMax || this.#bytes + bytes > this.#bounds.bytesMax) {
      throw new MillraceError('admission.overloaded', 'Too many requests are being handled.', {
        retryAfterS: 1,
      })
    }
    this.#requests += 1
    this.#bytes += bytes
    return declared === undefined ? this.#count(c, bodyBytesMax) : bytes
  }

  leave(bytes: number): void {
    this.#requests -= 1
    this.#bytes -= bytes
  }

  /** Reads a body of unknown length into the request, up to the bound. */
  async #count(c: Context<HttpEnv>, bodyBytesMax: number): Promise<number> {
    const limit = bodyLimit({
      maxSize: bodyBytesMax,
      onError: () => {
        throw tooLarge(bodyBytesMax)
      },
    })
    try {
      await limit(c, async () => undefined)
      return bodyBytesMax
    } catch (error) {
      this.leave(bodyBytesMax)
      throw error
    }
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

function tooLarge(bodyBytesMax: number): MillraceError {
  return new MillraceError('command.too-large', `The body has more than ${bodyBytesMax} bytes.`)
}
