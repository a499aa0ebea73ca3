#include "lua/escrow.h"

#include "shm/board_worker.h"

#include <stdlib.h>

struct tide_parcel {
    struct tide_parcel *next;
    uint32_t slot;
    uint32_t sequence;
    struct tide_handles handles;
};

void tide_escrow_keep(struct tide_escrow *escrow, struct tide_codec *codec,
                      const struct tide_board *board, uint32_t slot)
{
    if (codec->sent.count == 0)
        return;
    struct tide_parcel *parcel = calloc(1, sizeof *parcel);
    if (parcel == NULL)
        return; /* they stay where they are until there is memory */
    parcel->slot = slot;
    parcel->sequence = tide_board_sequence(board, slot);
    tide_handles_take(codec, 0, &parcel->handles);
    parcel->next = escrow->first;
    escrow->first = parcel;
}

void tide_escrow_look(struct tide_escrow *escrow,
                      const struct tide_board *board)
{
    for (struct tide_parcel **at = &escrow->first; *at != NULL;) {
        struct tide_parcel *parcel = *at;
        if (!tide_board_is_collected(board, parcel->slot, parcel->sequence)) {
            at = &parcel->next;
            continue;
        }
        *at = parcel->next;
        tide_handles_free(&parcel->handles);
        free(parcel);
    }
}
