/** Entity tags (RFC 9110, 8.8.3 and 13.1.2): made from what is sent, compared weakly. */

/** A strong tag over the bytes of the answer. */
export function etagOf(body: string): string {
  return `"${Bun.hash(body).toString(36)}"`
}

const TAG = /(?:W\/)?"[^"]*"/g

/** True when If-None-Match names the tag, weakly compared, or is `*`. */
export function matchesEtag(ifNoneMatch: string | null, etag: string): boolean {
  if (ifNoneMatch === null) return false
  if (ifNoneMatch.trim() === '*') return true
  const wanted = opaque(etag)
  return (ifNoneMatch.match(TAG) ?? []).some((candidate) => opaque(candidate) === wanted)
}

/** For another representation of the same content, such as a compressed one. */
export function weakEtag(etag: string): string {
  return etag.startsWith('W/') ? etag : `W/${etag}`
}

/** As the client has it, so that a cache finds what the 304 is about (RFC 9111, 4.3.3). */
export function etagAsHeld(ifNoneMatch: string | null, etag: string): string {
  const weak = weakEtag(etag)
  return ifNoneMatch?.includes(weak) === true ? weak : etag
}

function opaque(tag: string): string {
  return tag.startsWith('W/') ? tag.slice(2) : tag
}
