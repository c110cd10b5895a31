/**
 * The bytes of one HTTP request, sent again and again with other numbers in it: every order line in its body carries a
 * number of nine digits, and writing those costs a hundredth of building the text anew.
 *
 * The bytes are the same buffer each time: whoever has not sent all of them may not ask for the next number.
 */
import { bulkBody, orderLine } from './payload.ts'

export interface RequestParts {
  readonly method: 'GET' | 'POST'
  readonly path: string
  readonly contentType?: string
  readonly body?: string
}

/** What stands in front of the number of an order line. */
const MARK = '"ord-'
const DIGITS = 9
const ZERO = 48

export class RequestTemplate {
  readonly #bytes: Buffer
  /** Where each number begins. */
  readonly #places: readonly number[]

  constructor({ method, path, contentType, body = '' }: RequestParts) {
    const lines = [`${method} ${path} HTTP/1.1`, 'Host: 127.0.0.1']
    if (contentType !== undefined) lines.push(`Content-Type: ${contentType}`)
    if (body !== '') lines.push(`Content-Length: ${Buffer.byteLength(body)}`)
    this.#bytes = Buffer.from(`${lines.join('\r\n')}\r\n\r\n${body}`)
    this.#places = placesOf(this.#bytes)
  }

  /** One order line, as JSON. */
  static single(type: string, path: string = `/v1/commands/${type}`): RequestTemplate {
    const body = JSON.stringify(orderLine(0))
    return new RequestTemplate({ method: 'POST', path, contentType: 'application/json', body })
  }

  /** As many order lines as `count`, a line each. */
  static bulk(type: string, count: number): RequestTemplate {
    const body = bulkBody(type, 0, count)
    return new RequestTemplate({
      method: 'POST',
      path: '/v1/commands',
      contentType: 'application/x-ndjson',
      body,
    })
  }

  /** Order lines in one request. */
  get numbers(): number {
    return this.#places.length
  }

  /** The request with its order lines numbered from `first` on. */
  numbered(first: number): Buffer {
    let number = first
    for (const place of this.#places) {
      let rest = number
      for (let at = place + DIGITS - 1; at >= place; at--) {
        const tens = Math.floor(rest / 10)
        this.#bytes[at] = ZERO + rest - tens * 10
        rest = tens
      }
      number += 1
    }
    return this.#bytes
  }
}

function placesOf(bytes: Buffer): number[] {
  const places: number[] = []
  for (let at = bytes.indexOf(MARK); at >= 0; at = bytes.indexOf(MARK, at + 1)) places.push(at + MARK.length)
  return places
}
