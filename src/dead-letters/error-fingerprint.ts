/**
 * Errors that differ only in numbers, ids and quoted parts are one kind of error: they share a fingerprint. Pure.
 *
 *   Order 4711 of "anna" not found   ─▶  Order # of "…" not found  ─▶  err_5b1f0c22d9ae
 */

const REPLACEMENTS: readonly (readonly [RegExp, string])[] = [
  [/"[^"]*"|`[^`]*`|(?<!\w)'[^']*'(?!\w)/g, '"…"'],
  [/\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b/gi, '#'],
  [/\b0x[0-9a-f]+\b/gi, '#'],
  [/\b(?=[a-f]*\d)[0-9a-f]{6,}\b/gi, '#'],
  [/\d+(?:[.,:]\d+)*/g, '#'],
]

const FINGERPRINT = /^err_[0-9a-f]{12}$/
const DIGEST_CHARS = 12

/** The error without what changes from one command to the next. */
export function normaliseError(error: string): string {
  let text = error
  for (const [pattern, replacement] of REPLACEMENTS) text = text.replace(pattern, replacement)
  return text
}

export function fingerprintOf(error: string): string {
  const digest = new Bun.CryptoHasher('sha256').update(normaliseError(error)).digest('hex')
  return `err_${digest.slice(0, DIGEST_CHARS)}`
}

export function isFingerprint(text: string): boolean {
  return FINGERPRINT.test(text)
}
