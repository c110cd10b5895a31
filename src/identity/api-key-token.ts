/**
 * What an API key looks like: `mr_<id>_<secret><checksum>`.
 *
 * The id is public. The secret has 43 characters of 62, 256 random bits. The checksum (CRC-32, six characters) proves nothing:
 * it tells a typing mistake from a key at no cost, and scanners of leaked secrets a key from anything else. It counts as part
 * of the secret: a key that is right to the last character needs no look at it.
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
  /** With its checksum. */
  readonly secret: string
}

/** True for what wants to be an API key, and not a token of another kind. */
export function looksLikeApiKey(token: string): boolean {
  return token.startsWith(HEAD)
}

/** Where an id and a secret would stand; whether they are such is not looked at, except that "_" parts them. */
export function splitApiKey(token: string): ApiKeyToken {
  const isParted = token[SECRET_AT - 1] === '_'
  return {
    id: isParted ? token.slice(HEAD.length, HEAD.length + ID_CHARS) : '',
    secret: token.slice(SECRET_AT),
  }
}

/** False when the form or the checksum is wrong. */
export function isApiKey(token: string): boolean {
  return TOKEN.test(token) && checksumOf(token.slice(0, CHECKSUM_AT)) === token.slice(CHECKSUM_AT)
}

export function formatApiKey({ id, secret }: ApiKeyToken): string {
  return `${HEAD}${id}_${secret}`
}

export function newKeyId(): string {
  return randomText(ID_ALPHABET, ID_CHARS)
}

/** For the key of this id, whose checksum it has. */
export function newSecret(id: string): string {
  const random = randomText(ALPHABET, SECRET_CHARS)
  return random + checksumOf(`${HEAD}${id}_${random}`)
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
