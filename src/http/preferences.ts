/**
 * The Prefer header (RFC 7240). Of each preference the first one counts; what is not known or not well formed is ignored, as
 * the RFC asks.
 */

export interface Preferences {
  /** How long to wait for the end of the command, whole seconds, bounded; 0: not at all. */
  readonly waitS: number
  readonly respondAsync: boolean
  /** `return=minimal`: no body. */
  readonly minimal: boolean
}

const CHARS_MAX = 1000
/** A preference by name, its value if it has one, and parameters that say nothing to us. */
const PREFERENCE =
  /^\s*([!#$%&'*+.^_`|~\w-]+)\s*(?:=\s*([!#$%&'*+.^_`|~\w-]+|"(?:[^"\\]|\\.)*")?)?\s*(?:;.*)?$/
/** Between commas outside of quotes. */
const PARTS = /(?:[^,"]|"(?:[^"\\]|\\.)*")+/g

/** Several headers come joined by commas. */
export function readPreferences(header: string, waitMaxS: number): Preferences {
  const found = new Map<string, string>()
  for (const [part] of header.slice(0, CHARS_MAX).matchAll(PARTS)) {
    const [, name, value = ''] = PREFERENCE.exec(part) ?? []
    if (name === undefined || found.has(name.toLowerCase())) continue
    found.set(name.toLowerCase(), value.startsWith('"') ? value.slice(1, -1).replace(/\\(.)/g, '$1') : value)
  }
  const wait = found.get('wait') ?? ''
  return {
    waitS: /^\d{1,9}$/.test(wait) ? Math.min(Number(wait), waitMaxS) : 0,
    respondAsync: found.get('respond-async') === '',
    minimal: found.get('return')?.toLowerCase() === 'minimal',
  }
}

/** For Preference-Applied; '' when nothing was. */
export function appliedText({ waitS, respondAsync, minimal }: Preferences): string {
  const applied = [
    ...(respondAsync ? ['respond-async'] : []),
    ...(waitS > 0 ? [`wait=${waitS}`] : []),
    ...(minimal ? ['return=minimal'] : []),
  ]
  return applied.join(', ')
}
