/** The CloudEvent that a command came as (https://cloudevents.io, version 1.0): its context attributes, without the data. */

export interface CloudEventContext {
  /** With `source` unique; together they are the command's idempotency key. */
  readonly id: string
  readonly source: string
  /** The key of a command whose definition names none. */
  readonly subject: string | undefined
  /** When it happened, as the producer wrote it (RFC 3339). */
  readonly time: string | undefined
  readonly dataschema: string | undefined
  readonly datacontenttype: string | undefined
  /** All other attributes by name; in binary mode all of them are texts. */
  readonly extensions: Readonly<Record<string, string | number | boolean>>
}
