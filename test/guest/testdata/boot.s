# The small system that iPXE boots: what it says goes to the first serial port.
# Sector 0 loads the rest by the BIOS's extended read; that reads a message and 64
# KiB of data, writes an answer, reads it back, and ends the machine.

	.code16
	.globl start

	.set MESSAGE, 2048		# sector that the test has written
	.set ANSWER, 2049		# sector that we write
	.set DATA, 4096			# first of 128 sectors whose bytes are added up

start:
	cli
	xorw	%ax, %ax
	movw	%ax, %ds
	movw	%ax, %es
	movw	%ax, %ss
	movw	$0x7c00, %sp
	sti
	movb	%dl, drive
	movw	$1, packet_count
	movw	$loaded, packet_offset
	movl	$1, packet_lba
	movb	$0x42, %ah
	call	disk
	jmp	loaded

# disk does function AH of int 13h with the packet.
disk:
	movw	$packet, %si
	movb	drive, %dl
	movb	$0, %al
	int	$0x13
	jc	failed
	ret

failed:
	movw	$text_failed, %si
	call	say
	movb	$1, %al
	jmp	end

# say writes the text at SI to the serial port, up to a zero.
say:
	lodsb
	testb	%al, %al
	jz	1f
	call	put
	jmp	say
1:	ret

# put writes AL.
put:
	pushw	%ax
	movw	$0x3fd, %dx
1:	inb	%dx, %al
	testb	$0x20, %al
	jz	1b
	popw	%ax
	movw	$0x3f8, %dx
	outb	%al, %dx
	ret

# end ends the machine by qemu's isa-debug-exit: its status is 2 × AL + 1.
end:
	movw	$0xf4, %dx
	outb	%al, %dx
	hlt
	jmp	end

drive:		.byte 0
text_failed:	.asciz "\r\nodx boot: the disk failed\r\n"
	.balign	4
packet:
	.byte	16, 0
packet_count:	.word 0
packet_offset:	.word 0
packet_segment:	.word 0
packet_lba:	.quad 0

	.org	510
	.word	0xaa55

# Sector 1, behind the first.
loaded:
	movw	$text_system, %si
	call	say

	movw	$0x9000, packet_offset
	movl	$MESSAGE, packet_lba
	movb	$0x42, %ah
	call	disk
	movw	$0x9000, %si
	call	say

	movl	$ANSWER, packet_lba		# the same text, as it was read
	movb	$0x43, %ah
	call	disk

	movw	$0xa000, packet_offset
	movb	$0x42, %ah
	call	disk
	movw	$0x9000, %si
	movw	$0xa000, %di
	movw	$512, %cx
	repe	cmpsb
	jne	failed

	# 128 sectors, in two reads, added up byte by byte.
	movw	$64, packet_count
	movw	$0, packet_offset
	movw	$0x2000, packet_segment
	movl	$DATA, packet_lba
	movb	$0x42, %ah
	call	disk
	movw	$0x8000, packet_offset
	movl	$DATA + 64, packet_lba
	movb	$0x42, %ah
	call	disk
	movw	$0x2000, %ax
	movw	%ax, %es
	xorw	%di, %di
	xorw	%bx, %bx
1:	xorw	%ax, %ax
	movb	%es:(%di), %al
	addw	%ax, %bx
	incw	%di
	jnz	1b

	movw	$text_sum, %si
	call	say
	movw	$4, %cx
2:	rolw	$4, %bx
	movb	%bl, %al
	andb	$15, %al
	addb	$'0', %al
	cmpb	$'9', %al
	jbe	3f
	addb	$'a' - '9' - 1, %al
3:	call	put
	loop	2b
	movw	$text_done, %si
	call	say
	movb	$16, %al
	jmp	end

text_system:	.asciz "\r\nodx boot: a system from a LUN\r\n"
text_sum:	.asciz "\r\nodx boot: sum "
text_done:	.asciz "\r\nodx boot: done\r\n"
	.org	1024
