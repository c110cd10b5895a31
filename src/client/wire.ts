/** What the server's bodies hold, read with care: whatever stands behind a URL may have answered. */
import type { Durability } from '../contracts/durability.ts'
import type { CommandSituation, CommandStanding } from '../contracts/producer.ts'
import type { Carried, Situation } from './carrier.ts'
import type { ClientAccepted, ClientViewPage } from './client.ts'
import { ClientError, errorOfAnswer, toProblem } from './client-error.ts'

type Fields = Readonly<Record<string, unknown>>

function fieldsOf(value: unknown): Fields {
  return typeof value === 'object' && value !== null ? (value as Fields) : {}
}

function textOf(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined
}

/** @throws ClientError `fault` */
function idOf({ id }: Fields): string {
  if (typeof id === 'string') return id
  throw new ClientError('fault', 'The answer holds no id, so it is none of Millrace: is "url" right?')
}

/** The answer to one command. @throws ClientError `fault` */
export function readAccepted(type: string, body: unknown): ClientAccepted {
  const fields = fieldsOf(body)
  return {
    id: idOf(fields),
    type,
    status: fields['status'] === 'scheduled' ? 'scheduled' : 'accepted',
    durability: textOf(fields['durability']) as Durability | undefined,
    deduplicated: fields['deduplicated'] === true,
  }
}

/** A list of fates, which an answer to many has whatever its status; undefined: it has none. */
export function readFates(
  types: readonly string[],
  body: unknown,
  retryAfterS: number | undefined,
): (Carried | ClientError)[] | undefined {
  const { results, durability } = fieldsOf(body)
  if (!Array.isArray(results)) return undefined
  const fates = types.map(
    (): Carried | ClientError => new ClientError('fault', 'The answer does not tell of this command.'),
  )
  for (const result of results as readonly unknown[]) {
    const fields = fieldsOf(result)
    const index = Number(fields['index'])
    const type = types[index]
    if (type === undefined) continue
    const problem = toProblem(fields['problem'])
    fates[index] =
      problem === undefined
        ? { accepted: readAccepted(type, { ...fields, durability }), ended: undefined }
        : errorOfAnswer(problem.status, problem, { retryAfterS })
  }
  return fates
}

/** Where a command stands. @throws ClientError `fault` */
export function readSituation(body: unknown): Situation {
  const fields = fieldsOf(body)
  const problem = toProblem(fields['problem'])
  const dueAtMs = Date.parse(textOf(fields['dueAt']) ?? '')
  return {
    id: idOf(fields),
    stream: textOf(fields['stream']) ?? '',
    status: fields['status'] as CommandStanding,
    attempt: typeof fields['attempt'] === 'number' ? fields['attempt'] : undefined,
    result: fields['result'],
    error: problem?.detail,
    reason: textOf(fields['reason']) as CommandSituation['reason'],
    dueAtMs: Number.isNaN(dueAtMs) ? undefined : dueAtMs,
    deadLetterId: textOf(fields['deadLetterId']),
    problem,
  }
}

/** @throws ClientError `fault` */
export function readPage(body: unknown): ClientViewPage {
  const { data, page } = fieldsOf(body)
  if (!Array.isArray(data)) throw new ClientError('fault', 'The answer is no page of views: is "url" right?')
  return { views: data as ClientViewPage['views'], next: textOf(fieldsOf(page)['next']) }
}
