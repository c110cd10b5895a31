/** The command that is measured everywhere: an order line, about 130 bytes of JSON, no two alike. */

export interface OrderLine {
  readonly order: string
  readonly customer: string
  readonly sku: string
  readonly quantity: number
  readonly cents: number
  readonly currency: string
  readonly note: string
}

const KEYS_DEFAULT = 10_000

/** Order line `n`, of one among as many customers as there are keys. */
export function orderLine(n: number, keys: number = KEYS_DEFAULT): OrderLine {
  return {
    order: `ord-${String(n).padStart(9, '0')}`,
    customer: `cus-${String(customerOf(n, keys)).padStart(6, '0')}`,
    sku: `SKU-${String((n * 31) % 5000).padStart(5, '0')}`,
    quantity: 1 + (n % 9),
    cents: 199 + (n % 10_000),
    currency: 'EUR',
    note: 'leave it at the door',
  }
}

/**
 * A multiplication modulo the number of keys would bring every customer once before any comes again, and then no command ever
 * waits behind another of its key. Mixed bits repeat as random draws do. (The finalizer of MurmurHash3.)
 */
function customerOf(n: number, keys: number): number {
  let bits = Math.imul(n ^ (n >>> 16), 0x85ebca6b)
  bits = Math.imul(bits ^ (bits >>> 13), 0xc2b2ae35)
  return ((bits ^ (bits >>> 16)) >>> 0) % keys
}

/** Different customers among the first `count` order lines. */
export function customersAmong(count: number, keys: number = KEYS_DEFAULT): number {
  const seen = new Set<number>()
  for (let n = 0; n < count && seen.size < keys; n++) seen.add(customerOf(n, keys))
  return seen.size
}

const MADE = 20_000

/** Order lines that were made beforehand, over and over: making them is nobody's work that is measured. */
export function orderLines(): () => OrderLine {
  const lines = Array.from({ length: MADE }, (_, n) => orderLine(n))
  let n = 0
  return () => {
    n = n + 1 === MADE ? 0 : n + 1
    return lines[n] as OrderLine
  }
}

/** What the bulk route takes, a line each. */
export function bulkBody(type: string, from: number, count: number, keys?: number): string {
  let text = ''
  for (let n = from; n < from + count; n++)
    text += `{"type":"${type}","payload":${JSON.stringify(orderLine(n, keys))}}\n`
  return text
}

/** Bytes of one command's JSON. */
export const PAYLOAD_BYTES: number = Buffer.byteLength(JSON.stringify(orderLine(1)))
