/**
 * What an answer must be, whatever was asked: no fault of ours, problems well formed and of known types, nothing repeated that
 * was secret or only the sender's, nothing that the sender wrote into its head.
 */
import type { FuzzCase } from './cases.ts'
import { isWhole } from './hostile-request.ts'
import type { WireAnswer } from './wire.ts'

export interface Fault {
  /** Which rule; a smaller case shows the same fault when it breaks the same one. */
  readonly rule: string
  readonly detail: string
}

/** What an answer without a problem may be: Bun's own, when what came was no HTTP that it takes. */
const SERVERS_OWN: ReadonlySet<number> = new Set([400, 413, 431, 505])
/** Methods to which Bun closes the connection without a word. */
const UNANSWERED: ReadonlySet<string> = new Set(['get', 'BREW', 'CONNECT'])
/** Nothing lies below it: raw cases put it in front of paths. */
const GUARDED = '/guarded-prefix'
const IANA = 'https://iana.org/assignments/http-problem-types#'
const INSTANCE_CHARS_MAX = 300
const ANSWER_BYTES_MAX = 4_000_000

export class Oracle {
  readonly #secrets: readonly string[]
  /** Types of problems seen so far that are not IANA's. */
  readonly problemTypes: Set<string> = new Set()
  /** True while Redis is full on purpose. */
  isPressed = false

  /** `secrets`: what must not stand in any answer. */
  constructor(secrets: readonly string[]) {
    this.#secrets = secrets
  }

  silence({ request }: FuzzCase): Fault | undefined {
    if (!isWhole(request) || UNANSWERED.has(request.method)) return undefined
    return { rule: 'an answer', detail: 'The connection ended, or stayed silent, without an answer.' }
  }

  judge({ request, marks, route }: FuzzCase, answer: WireAnswer): Fault | undefined {
    const { status, headers, body } = answer
    const text = plainBody(answer)
    const told = headers.size === 0 ? '' : [...headers].map(([name, value]) => `${name}: ${value}`).join('\n')
    if (headers.has('x-injected')) return { rule: 'no injected header', detail: told }
    for (const secret of [...this.#secrets, marks.canary]) {
      if (text.includes(secret) || told.includes(secret)) {
        return { rule: 'nothing repeated', detail: `"${secret}" stands in the answer: ${text.slice(0, 300)}` }
      }
    }
    if (body.length > ANSWER_BYTES_MAX) return { rule: 'bounded answers', detail: `${body.length} bytes` }
    if (status >= 500 && status !== 503 && !(status === 505 && body.length === 0)) {
      return { rule: 'no 5xx', detail: `${status} ${text.slice(0, 300)}` }
    }
    if (status < 300 && request.raw?.bytes.includes(GUARDED) === true) {
      return { rule: 'a path is what was sent', detail: `${status} for a path below ${GUARDED}` }
    }
    if (status < 400) return this.#judgeGood(answer, text)
    if (SERVERS_OWN.has(status) && body.length === 0 && headers.get('connection') === 'close')
      return undefined
    if (request.method === 'HEAD') return undefined
    // So many operations at once are refused, on purpose.
    return this.#judgeProblem(answer, text, this.isPressed || route.takes === 'plan')
  }

  #judgeGood({ headers }: WireAnswer, text: string): Fault | undefined {
    if (headers.get('content-type')?.startsWith('application/json') !== true || text === '') return undefined
    return parsed(text) === undefined ? { rule: 'JSON answers', detail: text.slice(0, 300) } : undefined
  }

  #judgeProblem({ status, headers }: WireAnswer, text: string, mayBeBusy: boolean): Fault | undefined {
    // Health tells what is not well, in its own form.
    if (status === 503 && text.startsWith('{"ok":false')) return undefined
    const fault = (detail: string): Fault => ({
      rule: 'well-formed problems',
      detail: `${detail}: ${status} ${text.slice(0, 300)}`,
    })
    if (headers.get('content-type') !== 'application/problem+json')
      return fault('not application/problem+json')
    const problem = parsed(text)
    if (problem === undefined) return fault('not JSON')
    const { type, title, detail, instance, requestId } = problem
    if (problem['status'] !== status) return fault('another status inside')
    if (typeof type !== 'string' || typeof title !== 'string' || typeof requestId !== 'string')
      return fault('a member is missing')
    if (detail !== undefined && (typeof detail !== 'string' || detail.length > 1000))
      return fault('a long detail')
    if (typeof instance !== 'string' || instance.length > INSTANCE_CHARS_MAX) return fault('a long instance')
    if (!type.startsWith(IANA)) this.problemTypes.add(type)
    if (status !== 503) return undefined
    if (!/^[1-9]\d*$/.test(headers.get('retry-after') ?? '')) return fault('503 without Retry-After')
    return mayBeBusy ? undefined : { rule: 'no 503 that was not meant', detail: type }
  }
}

/** As text, decompressed. */
function plainBody({ headers, body }: WireAnswer): string {
  const coding = headers.get('content-encoding')
  if (coding === 'gzip') return Buffer.from(Bun.gunzipSync(new Uint8Array(body))).toString('utf8')
  if (coding === 'zstd') return Buffer.from(Bun.zstdDecompressSync(new Uint8Array(body))).toString('utf8')
  return body.toString('utf8')
}

function parsed(text: string): Readonly<Record<string, unknown>> | undefined {
  try {
    const value: unknown = JSON.parse(text)
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {}
  } catch {
    return undefined
  }
}
