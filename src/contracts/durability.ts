/**
 * What an accepted command survives, from the least to the most:
 *
 *   everysec    a crash of the process; about 2 s may be lost when Redis or its machine crashes
 *   fsync       a crash of the machine too
 *   replicated  the loss of the primary too: as many replicas as declared have it
 */
export const DURABILITIES = ['everysec', 'fsync', 'replicated'] as const
export type Durability = (typeof DURABILITIES)[number]
