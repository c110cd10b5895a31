/**
 * In which of the three modes of the HTTP binding a request carries CloudEvents, if any, and what its body holds.
 *
 *   application/cloudevents-batch+json   batch
 *   application/cloudevents+json         structured: one event
 *   anything else, with ce-id, ce-source, ce-specversion and ce-type   binary: one event, its data is the body
 */
import type { MaybeSubmission } from '../commands/readable-submissions.ts'
import type { Submission } from '../commands/submission.ts'
import { errorCode, MillraceError } from '../contracts/errors.ts'
import { parseJson } from './bulk-body.ts'
import { readBinaryEvent, readJsonEvent } from './cloud-event.ts'
import { mediaOf } from './media-type.ts'
import { utf8Text } from './utf8-text.ts'

export type EventMode = 'batch' | 'structured' | 'binary'

export const EVENT_TYPES = 'application/cloudevents+json, application/cloudevents-batch+json'

const MODE_BY_TYPE: Readonly<Record<string, EventMode>> = {
  'application/cloudevents+json': 'structured',
  'application/cloudevents-batch+json': 'batch',
}
const REQUIRED = ['ce-source', 'ce-specversion', 'ce-type']

/** Undefined: no CloudEvents, or a format of them that is not known. */
export function eventModeOf(headers: Headers): EventMode | undefined {
  const contentType = headers.get('content-type')
  if (contentType !== null && /^\s*application\/cloudevents/i.test(contentType))
    return modeByType(contentType)
  return headers.has('ce-id') && REQUIRED.every((name) => headers.has(name)) ? 'binary' : undefined
}

/** Parameters as for JSON: UTF-8 or nothing. */
function modeByType(contentType: string): EventMode | undefined {
  const [name = '', ...parameters] = contentType.split(';')
  const isUtf8 = mediaOf(['application/json', ...parameters].join(';')) === 'json'
  return isUtf8 ? MODE_BY_TYPE[name.trim().toLowerCase()] : undefined
}

/** @throws MillraceError `command.malformed`, `command.invalid`, `command.too-large` */
export function readEvent(
  mode: Exclude<EventMode, 'batch'>,
  headers: Headers,
  body: Buffer,
  trace: string | undefined,
): Submission {
  return mode === 'binary'
    ? readBinaryEvent(headers, body, trace)
    : readJsonEvent(parseJson(utf8Text(body)), trace)
}

/**
 * A bad event costs only itself. A batch may be empty.
 *
 * @throws MillraceError `command.malformed`, `command.invalid`, `command.too-large` for the body as a whole
 */
export function readEventBatch(body: Buffer, itemsMax: number, trace: string | undefined): MaybeSubmission[] {
  const values = parseJson(utf8Text(body))
  if (!Array.isArray(values))
    throw new MillraceError('command.invalid', 'A batch is an array of CloudEvents.')
  if (values.length > itemsMax) {
    throw new MillraceError(
      'command.too-large',
      `The body holds ${values.length} events; at most ${itemsMax} are taken at once.`,
    )
  }
  return values.map((value) => {
    try {
      return readJsonEvent(value, trace)
    } catch (error) {
      if (errorCode(error) !== undefined) return error as MillraceError
      throw error
    }
  })
}
