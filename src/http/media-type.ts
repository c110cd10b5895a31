/** Content types that bodies of commands may have, recognised without parsing the same header twice. */

export type Media = 'json' | 'msgpack' | 'ndjson'

const MEDIA: Readonly<Record<string, Media>> = {
  'application/json': 'json',
  'application/vnd.msgpack': 'msgpack',
  'application/msgpack': 'msgpack',
  'application/x-msgpack': 'msgpack',
  'application/x-ndjson': 'ndjson',
  'application/ndjson': 'ndjson',
  'application/jsonl': 'ndjson',
}

const KNOWN_MAX = 100
const known = new Map<string, Media | undefined>()

/** Undefined for anything else, and for text in another charset than UTF-8. */
export function mediaOf(contentType: string | null): Media | undefined {
  if (contentType === null) return undefined
  if (known.has(contentType)) return known.get(contentType)
  const media = parse(contentType)
  if (known.size < KNOWN_MAX) known.set(contentType, media)
  return media
}

function parse(contentType: string): Media | undefined {
  const [name = '', ...parameters] = contentType.toLowerCase().split(';')
  const charset = parameters
    .map((parameter) => parameter.trim())
    .find((parameter) => parameter.startsWith('charset='))
  if (charset !== undefined && !/^charset="?utf-?8"?$/.test(charset)) return undefined
  return Object.hasOwn(MEDIA, name.trim()) ? MEDIA[name.trim()] : undefined
}
