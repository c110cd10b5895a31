/**
 * What an API key looks like: `mr_<id>_<secret><checksum>`.
 *
 * The id is public. The secret has 43 characters of 62, 256 random bits. The checksum (CRC-32, six characters) proves nothing:
 * it tells a typing mistake from a key at no cost, and scanners of leaked secrets a key from anything else.
 */

const ALPHABET = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'
const ID_ALPHABET = '0123456789abcdefghijklmnopqrstuvwxyz'
const ID_CHARS = 12
const SECRET_CHARS = 43
const CHECKSUM_CHARS = 6
const HEAD = 'mr_'
const SECRET_AT = HEAD.length + ID_CHARS + 1
const CHECKSUM_AT = SECRET_AT + SECRET_CHARS
const TOKEN = /^mr_[0-9a-z]{12}_[0-9A-Za-z]{49}$/

export interface ApiKeyToken {
  readonly id: string
  readonly secret: string
}

/** True for what wants to be an API key, and not a token of another kind. */
export function looksLikeApiKey(token: string): boolean {
  return token.startsWith(HEAD)
}

/** Undefined when the form or the checksum is wrong. */
export function parseApiKey(token: string): ApiKeyToken | undefined {
  if (!TOKEN.test(token)) return undefined
  if (checksumOf(token.slice(0, CHECKSUM_AT)) !== token.slice(CHECKSUM_AT)) return undefined
  return { id: token.slice(HEAD.length, HEAD.length + ID_CHARS), secret: token.slice(SECRET_AT, CHECKSUM_AT) }
}

export function formatApiKey({ id, secret }: ApiKeyToken): string {
  const head = `${HEAD}${id}_${secret}`
  return head + checksumOf(head)
}

export function newKeyId(): string {
  return randomText(ID_ALPHABET, ID_CHARS)
}

export function newSecret(): string {
  return randomText(ALPHABET, SECRET_CHARS)
}

export function isKeyId(text: string): boolean {
  return /^[0-9a-z]{12}$/.test(text)
}

/** Every character is equally likely: bytes beyond the last whole alphabet are thrown away. */
function randomText(alphabet: string, chars: number): string {
  const usable = 256 - (256 % alphabet.length)
  let text = ''
  while (text.length < chars) {
    for (const byte of crypto.getRandomValues(new Uint8Array(chars))) {
      if (byte < usable && text.length < chars) text += alphabet[byte % alphabet.length]
    }
  }
  return text
}

function checksumOf(text: string): string {
  let rest = Bun.hash.crc32(text)
  let checksum = ''
  for (let i = 0; i < CHECKSUM_CHARS; i++) {
    checksum = `${ALPHABET[rest % ALPHABET.length]}${checksum}`
    rest = Math.floor(rest / ALPHABET.length)
  }
  return checksum
}
