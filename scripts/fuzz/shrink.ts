/** Makes a failing request small: leaves out one part after another, for as long as it still breaks the same rule. */
import { bytesOf, type HostileRequest } from './hostile-request.ts'

const TRIES = 200

/** `fails` sends a request anew. */
export async function shrunk(
  request: HostileRequest,
  fails: (smaller: HostileRequest) => Promise<boolean>,
): Promise<HostileRequest> {
  let best = request
  let tries = 0
  for (let isSmaller = true; isSmaller; ) {
    isSmaller = false
    for (const candidate of smallerOnes(best)) {
      tries += 1
      if (tries > TRIES) return best
      if (!(await fails(candidate))) continue
      best = candidate
      isSmaller = true
      break
    }
  }
  return best
}

function* smallerOnes(request: HostileRequest): Generator<HostileRequest> {
  const { raw, headers, body, target } = request
  if (raw !== undefined) {
    for (const bytes of cuts(raw.bytes)) yield { ...request, raw: { ...raw, bytes } }
    return
  }
  for (let i = 0; i < headers.length; i++) yield { ...request, headers: headers.toSpliced(i, 1) }
  if (body !== undefined && body.length > 0) {
    yield { ...request, body: Buffer.alloc(0) }
    for (const smaller of cuts(body)) yield { ...request, body: smaller }
  }
  const query = target.indexOf('?')
  if (query > 0) {
    yield { ...request, target: target.slice(0, query) }
    const pairs = target.slice(query + 1).split('&')
    for (let i = 0; pairs.length > 1 && i < pairs.length; i++) {
      yield { ...request, target: `${target.slice(0, query)}?${pairs.toSpliced(i, 1).join('&')}` }
    }
  }
}

/** Without a half, a quarter, an eighth, somewhere. */
function* cuts(bytes: Buffer): Generator<Buffer> {
  for (let size = bytes.length >> 1; size > 0; size >>= 1) {
    const steps = Math.min(16, Math.ceil(bytes.length / size))
    for (let i = 0; i < steps; i++) {
      yield Buffer.concat([
        bytes.subarray(0, i * size),
        bytes.subarray(Math.min(bytes.length, (i + 1) * size)),
      ])
    }
    if (size < bytes.length / 64) return
  }
}

const SHOWN_CHARS_MAX = 600

/** How a person sends it again: as curl where curl can, else as bytes to a port. */
export function reproduction(request: HostileRequest, port: number): string {
  const bytes = bytesOf(request)
  const shown = JSON.stringify(bytes.toString('latin1').slice(0, SHOWN_CHARS_MAX))
  const raw = `echo ${bytes.toString('base64')} | base64 -d | nc -q 2 127.0.0.1 ${port}`
  return `${shown}\n${bytes.length > 8000 ? '(too long to show: use --case)' : raw}`
}
