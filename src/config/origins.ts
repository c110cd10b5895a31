/** Origins as browsers write them (RFC 6454): scheme, host and, if it is not the scheme's own, port. Nothing else is compared with. */
import { MillraceError } from '../contracts/errors.ts'

const ANY = '*'
const ORIGIN = /^[a-z][a-z0-9+.-]*:\/\/[a-z0-9.[\]:-]+$/

/** @throws MillraceError `config.invalid` */
export function parseOrigins(text: string | undefined, where: string): readonly string[] {
  const given = (text ?? '').split(',').map((each) => each.trim())
  const origins = given.filter((each) => each !== '')
  if (origins.includes(ANY) && origins.length > 1) {
    throw invalid(where, `names "${ANY}" beside others; name all origins, or "${ANY}" alone`)
  }
  return [...new Set(origins.map((origin) => checkOrigin(origin, where)))]
}

function checkOrigin(text: string, where: string): string {
  if (text === ANY) return text
  const url = URL.canParse(text) ? new URL(text) : undefined
  // Of schemes that are not the web's, such as those of apps and extensions, URL knows no origin.
  const isWeb = url?.protocol === 'http:' || url?.protocol === 'https:'
  if (!text.includes(ANY) && (isWeb ? url?.origin === text : ORIGIN.test(text))) return text
  throw invalid(
    where,
    `holds ${JSON.stringify(text.slice(0, 100))}, which is no origin${hintOf(text, url, isWeb)}`,
  )
}

function hintOf(text: string, url: URL | undefined, isWeb: boolean): string {
  if (text.includes(ANY)) return `; "${ANY}" stands for all origins, or not at all`
  if (isWeb && url !== undefined)
    return `; did you mean "${url.origin}"? No path, no slash at the end, no default port`
  if (text === 'null') return ': any page without an origin would be meant. Serve the page from a real one'
  return '; write it as a browser does, such as "https://app.example" or "http://localhost:5173"'
}

function invalid(where: string, what: string): MillraceError {
  return new MillraceError('config.invalid', `${where} ${what}.`)
}
