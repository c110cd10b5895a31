/** Bodies of admin calls: one small JSON object, each of its fields known by name. */
import { MillraceError } from '../contracts/errors.ts'
import { nearest } from '../contracts/names.ts'
import type { RouteContext } from './answers.ts'
import type { BodyReader } from './body-reader.ts'
import { parseJson } from './bulk-body.ts'
import { mediaOf } from './media-type.ts'
import { HttpMistake } from './problem.ts'
import { utf8Text } from './utf8-text.ts'

const BODY_BYTES_MAX = 512 * 1024

/** The JSON of the body; undefined when there is none. */
export async function readJsonBody(c: RouteContext, bodies: BodyReader): Promise<unknown> {
  const place = bodies.enter(c.req.raw, BODY_BYTES_MAX)
  const text = utf8Text(await bodies.read(c.req.raw, place).finally(() => bodies.leave(place)))
  if (text.trim() === '') return undefined
  const contentType = c.req.raw.headers.get('content-type')
  if (mediaOf(contentType) === 'json') return parseJson(text)
  const accepted = 'application/json'
  throw new HttpMistake(
    'unsupported-media-type',
    `"${(contentType ?? 'none').slice(0, 80)}" is not taken here; send ${accepted}.`,
    { 'accept-post': accepted },
  )
}

/** @throws MillraceError `command.malformed` */
export function readFields(value: unknown, known: readonly string[]): Readonly<Record<string, unknown>> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw malformed(`Send a JSON object with ${known.map((name) => `"${name}"`).join(', ')}.`)
  }
  for (const name of Object.keys(value)) {
    if (known.includes(name)) continue
    const near = nearest(name.slice(0, 80), known)
    const hint = near === undefined ? `Known here: ${known.join(', ')}.` : `Did you mean "${near}"?`
    throw malformed(`There is no field "${name.slice(0, 80)}". ${hint}`)
  }
  return value as Readonly<Record<string, unknown>>
}

export function malformed(sentence: string): MillraceError {
  return new MillraceError('command.malformed', sentence)
}
