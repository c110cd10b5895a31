/**
 * Bodies of requests, read within bounds: each at most so many bytes, all together at most so many at once.
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

/** The client went away before its body was through. */
export class RequestAborted extends Error {
  override readonly name = 'RequestAborted'
}

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
   * Takes a place for a request and gives it back when `handle` has ended.
   *
   * @throws MillraceError `command.too-large`, `admission.overloaded`, and what `handle` throws
   */
  async admit(c: Context<HttpEnv>, bodyBytesMax: number, handle: () => Promise<Response>): Promise<Response> {
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
    try {
      if (declared === undefined) await countBody(c, bodyBytesMax)
      return await handle()
    } finally {
      this.#requests -= 1
      this.#bytes -= bytes
    }
  }
}

/** @throws RequestAborted */
export async function readText(c: Context<HttpEnv>): Promise<string> {
  try {
    return await c.req.raw.text()
  } catch {
    throw new RequestAborted()
  }
}

/** @throws RequestAborted */
export async function readBytes(c: Context<HttpEnv>): Promise<Buffer> {
  try {
    return Buffer.from(await c.req.raw.arrayBuffer())
  } catch {
    throw new RequestAborted()
  }
}

/** Undefined for a body of unknown length; without body and length it is 0. */
function declaredLength(headers: Headers): number | undefined {
  const text = headers.get('content-length')
  if (text !== null) return Number(text)
  return headers.has('transfer-encoding') ? undefined : 0
}

/** Reads a body of unknown length into the request, up to the bound. */
async function countBody(c: Context<HttpEnv>, bodyBytesMax: number): Promise<void> {
  const limit = bodyLimit({
    maxSize: bodyBytesMax,
    onError: () => {
      throw tooLarge(bodyBytesMax)
    },
  })
  try {
    await limit(c, async () => undefined)
  } catch (error) {
    if (error instanceof MillraceError) throw error
    throw new RequestAborted()
  }
}

function tooLarge(bodyBytesMax: number): MillraceError {
  return new MillraceError('command.too-large', `The body has more than ${bodyBytesMax} bytes.`)
}
